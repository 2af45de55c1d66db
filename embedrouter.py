"""The command line's composition root: `embedrouter <verb>`.

Every verb lives beside what it drives, in `data.commands`, `router.commands` and `training.commands`; those modules
import what they need when a verb runs, so that `--help` stays instant.
"""

import sys

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
