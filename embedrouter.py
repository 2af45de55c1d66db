"""The command line's composition root: `embedrouter <verb>`.

Every verb lives beside what it drives, in `data.commands`, `router.commands` and `training.commands`; those modules
import what they need when a verb runs, so that `--help` stays instant.
"""

import os
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

import data.commands
import router.commands
import training.commands
from data.errors import EmbedRouterError

INTERRUPTED = {
    "import": "interrupted; nothing is lost: run the same import again, and what is missing goes in",
    "llm2vec": "interrupted; run the same command again, and it goes on from its last checkpoint",
    "serve": "stopped",
}


class Verbs(TyperGroup):
    """The verbs, each of which can be interrupted: one line says so, and the exit status is 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print(f"embedrouter: {INTERRUPTED.get(str(ctx.invoked_subcommand), 'interrupted')}", file=sys.stderr)
            raise


app = typer.Typer(
    name="embedrouter",
    cls=Verbs,
    help="An LLM router that learns embeddings of models and questions from correctness logs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
data.commands.register(app)
training.commands.register(app)
router.commands.register(app)

READ_IT_THEMSELVES = ("serve", "route", "search", "replay")
NEED_NO_DATABASE = ("demo", "evaluate", "llm2vec")


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
    """Run the command line: an error of the user or of the database is one line and exit status 1."""
    try:
        app()
    except EmbedRouterError as error:
        print(f"embedrouter: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        from data.database import failure

        said = failure(error)
        if said is None:
            raise
        print(f"embedrouter: {said}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
