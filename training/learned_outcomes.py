"""Outcomes that an encoder has learned from: listed beside its weights, and left out of every fit on its vectors.

The vector of such a question knows its answers, as that of no new prompt does: a forecaster fitted on it would take the
text to say more than it does. It knows folders and hashes of prompts, and not how an encoder learns.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.observations import prompt_sha256
from router.encoder.registry import WINDOWS
from training.dataset import Correctness
from training.errors import TrainingError

FILE = "learned_outcomes.json"


@dataclass(frozen=True)
class Left:
    """What an encoder leaves to fit on, and how many questions with outcomes that took out."""

    data: Correctness
    n_left_out: int


def save_learned(folder: Path, prompt_hashes: Collection[str]) -> None:
    """Say beside an encoder's weights which questions' outcomes it has learned from; none removes the list."""
    path = folder / FILE
    if not prompt_hashes:
        path.unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"prompt_sha256": sorted(prompt_hashes)}, indent=0) + "\n", encoding="utf-8")


def read_learned(folder: Path) -> frozenset[str]:
    """The hashes of the prompts whose outcomes the encoder in a folder has learned from; none where nothing says so."""
    path = folder.expanduser() / FILE
    if not path.is_file():
        return frozenset()
    try:
        return frozenset(map(str, json.loads(path.read_text(encoding="utf-8"))["prompt_sha256"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}, which says what the encoder has learned from, cannot be read: {error}") from error


def leave_out_learned(data: Correctness, encoder_spec: str) -> Left:
    """Hide the outcomes of the train and val questions that the encoder learned from, near-duplicates together.

    TrainingError where it learned from test questions, on which nothing could be judged then, or from all others.
    """
    where = WINDOWS.sub("", encoder_spec).partition(":")[2]
    learned = read_learned(Path(where)) if where else frozenset()
    if not learned:
        return Left(data, 0)
    own = np.array([prompt_sha256(prompt) in learned for prompt in data.prompts])
    test = data.split == "test"
    if n := int(np.count_nonzero(own & test)):
        raise TrainingError(
            f"the encoder in {where} has learned from the outcomes of {n:,} of the {test.sum():,} test questions, and "
            "could not be judged on them: let it learn from the train questions of these very logs"
        )
    hidden = np.isin(data.groups, data.groups[own]) & ~test
    left = replace(data, label=np.where(hidden[:, None], np.float32(np.nan), data.label))
    answered = data.observed.any(axis=1)
    if len(np.unique(data.groups[answered & ~hidden & ~test])) < 2:
        raise TrainingError(
            f"the encoder in {where} has learned from the outcomes of all train and val questions: none is left to fit "
            "the forecaster on. Let it learn from a smaller share of them (`llm2vec ... --logs-share`)"
        )
    return Left(left, int(np.count_nonzero(answered & hidden)))
