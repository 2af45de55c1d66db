"""One module per family of endpoints: wire only."""
