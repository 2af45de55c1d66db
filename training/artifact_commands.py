"""The verbs `artifacts list|promote|rollback`."""

import typer


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
