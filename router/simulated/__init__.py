"""Simulated LLMs: they parse a prompt, compute its answer, and err where and how their skill says.

Nothing here knows a gold answer, or that a router exists.
"""
