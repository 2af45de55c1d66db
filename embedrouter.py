"""The command line's composition root: `embedrouter <verb>`.

Every verb lives beside what it drives, in `data.commands`, `router.commands` and `training.commands`; those modules
import what they need when a verb runs, so that `--help` stays instant.
"""

import os
import sys
from pathlib import Path

import typer

import data.commands
import router.commands
import training.commands
from data.errors import EmbedRouterError

app = typer.Typer(
    name="embedrouter",
    help="An LLM router that learns embeddings of models and questions from correctness logs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
data.commands.register(app)
training.commands.register(app)
router.commands.register(app)

READ_IT_THEMSELVES = ("serve", "route")
NEED_NO_DATABASE = ("demo", "evaluate")


@app.callback()
def configure(context: typer.Context) -> None:
    """Let config.yaml name the database of every verb; serving reads all of it, and perhaps another file."""
    if context.invoked_subcommand in (*READ_IT_THEMSELVES, *NEED_NO_DATABASE) or os.environ.get(
        "EMBEDROUTER_DATABASE_URL"
    ):
        return
    if os.environ.get("EMBEDROUTER_CONFIG") or Path("config.yaml").is_file():
        from router.settings import configured_database_url

        os.environ["EMBEDROUTER_DATABASE_URL"] = configured_database_url() or ""


def main() -> None:
    """Run the command line: a user's error is one line and exit status 1, an interrupt is 130."""
    try:
        app()
    except EmbedRouterError as error:
        print(f"embedrouter: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("embedrouter: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
