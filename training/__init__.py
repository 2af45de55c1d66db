"""LEARNING: correctness logs in, artifacts, comparisons and reports out."""
