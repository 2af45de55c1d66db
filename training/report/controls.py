"""Controls of a comparison: logs from which nothing can be learned, as the benchmark script wrote their figures."""

import json
from dataclasses import dataclass
from pathlib import Path

from training.errors import TrainingError

MEANINGS = {
    "none": "the log as it is",
    "across": "outcomes permuted across questions: the model mean's NLL",
    "within": "outcomes permuted within questions: AUC within a question of one half",
    "vectors": "random question vectors, no text: the model mean's NLL",
    "surface": "random question vectors: what lengths and formats alone are worth",
}


@dataclass(frozen=True)
class Control:
    """One broken log: what it was to show, and what came, intervals at 95%."""

    name: str
    meaning: str
    nll: float
    nll_model_mean: float
    difference_ci95: tuple[float, float]
    auc_within_question: float
    auc_within_question_ci95: tuple[float, float]


def read_controls(path: Path) -> tuple[Control, ...]:
    """Read what `python -m tests.benchmarks.bench_controls PATH --json` printed; TrainingError where it is not that."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"cannot read controls from {path}: {error.strerror}") from error
    lines = [line for line in text.splitlines() if line.startswith("{")]  # what it printed on the way is no JSON
    try:
        found = json.loads(lines[-1] if lines else text)["controls"]
        return tuple(
            Control(
                name=name,
                meaning=MEANINGS.get(name, ""),
                nll=float(one["nll"]),
                nll_model_mean=float(one["nll_model_mean"]),
                difference_ci95=(
                    float(one["nll_minus_model_mean"]["low"]),
                    float(one["nll_minus_model_mean"]["high"]),
                ),
                auc_within_question=float(one["auc_within_question"]),
                auc_within_question_ci95=(
                    float(one["auc_within_question_ci95"][0]),
                    float(one["auc_within_question_ci95"][1]),
                ),
            )
            for name, one in found.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise TrainingError(
            f"{path} does not hold controls ({type(error).__name__}: {error}); "
            "`python -m tests.benchmarks.bench_controls PATH --json` prints them"
        ) from error
