"""Importers: correctness logs from files, streamed and idempotent."""
