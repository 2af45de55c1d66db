"""Measured comparisons that anyone can run."""
