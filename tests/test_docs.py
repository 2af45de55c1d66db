"""The documentation is true: its commands exist, every verb shows an example, and help stays light."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import embedrouter
from router.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HEAVY = ("torch", "transformers", "sklearn", "pandas", "numpy", "sqlalchemy", "fastapi", "httpx", "plotly", "openai")


def commands() -> Iterator[tuple[str, Any]]:
    """Every verb with its full name."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield name, command
            return
        for child_name, child in children.items():
            yield from walk(f"{name} {child_name}".strip(), child)

    yield from walk("", typer.main.get_command(embedrouter.app))


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_verb_shows_an_example_of_itself(name: str) -> None:
    text = COMMANDS[name].help or ""
    assert f"embedrouter {name}" in text, f"`embedrouter {name} --help` has no example"


def shown() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("embedrouter ")]


@pytest.mark.parametrize("line", shown())
def test_every_command_in_the_readme_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)[1:]
    name = max((n for n in COMMANDS if " ".join(words).startswith(n)), key=len, default=None)
    assert name is not None, line
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word in options, f"{line}: no option {word}"


def test_the_readmes_configuration_is_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    settings = Settings.model_validate(yaml.safe_load(block))
    assert settings.policy.name == "balanced"
    assert settings.pool[0].upstream is not None


def test_the_readmes_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)\s", " ".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)))) <= targets


def test_help_loads_nothing_heavy() -> None:
    script = f"import sys, embedrouter; print([m for m in {HEAVY!r} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
