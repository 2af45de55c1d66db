"""The verbs of `router`. Imports happen inside the verbs: this module loads on every `embedrouter --help`."""

import typer


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
