"""Encoders: prompts in, question vectors out."""
