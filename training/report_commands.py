"""The verb `report`."""

import typer


def register(app: typer.Typer) -> None:
    """Add these verb to the command line."""
