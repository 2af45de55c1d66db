"""EmbedRouter's tests."""
