"""Live evaluation: ask models questions over HTTP, grade, store."""
