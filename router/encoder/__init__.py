"""Encoders: prompts in, question vectors out."""

DEFAULT_ENCODER = "lsa+bundled"
