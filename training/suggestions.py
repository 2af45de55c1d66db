"""How suggested questions are given to a person: a CSV to fill in, which `--answers` reads back, or JSON."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from data.errors import EmbedRouterError
from training.suggest import SuggestedQuestion

COLUMNS = ("question_id", "benchmark", "prompt", "label")


def check_output(output: Path | None) -> None:
    """Refuse, before any work, a file that cannot be read back or that may hold answers already: EmbedRouterError."""
    if output is not None and output.suffix != ".csv":
        raise EmbedRouterError(f"--output {output} must end in .csv: that is what --answers reads back")
    if output is not None and output.exists():
        raise EmbedRouterError(f"--output {output} exists already and may hold answers: name another file")


def give(chosen: Sequence[SuggestedQuestion], output: Path | None, as_json: Mapping[str, str] | None) -> str | None:
    """Write suggestions to a file, to the screen or, beside what `as_json` says, as a JSON object.

    Returns what to tell a person of a file that was written, None where nothing more is to be printed.
    """
    rows = [COLUMNS, *((one.question_id, one.benchmark, one.prompt, "") for one in chosen)]
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    if as_json is not None:
        sys.stdout.write(json.dumps({**as_json, "questions": [asdict(one) for one in chosen]}) + "\n")
    elif output is None:
        csv.writer(sys.stdout).writerows(rows)
    else:
        return f"{len(chosen)} questions are in {output}"
    return None
