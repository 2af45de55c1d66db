"""The verbs `jobs run|list`."""

import typer


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
