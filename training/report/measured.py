"""What benchmark scripts measured on the artifact's data: EmbedLLM's own procedure, and the default without its parts.

It reads the JSON files that they write, and knows nothing of artifacts and HTML.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import TrainingError

Interval = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """What one script measures: how the page and the command line call it, and which methods are shown, by name."""

    name: str
    title: str
    contents: str
    note: str
    methods: Mapping[str, str]
    command: str


COMPARISON = Kind(
    name="comparison",
    title="Beside EmbedLLM's own procedure",
    contents="the comparison with EmbedLLM's own procedure",
    note="Read on the test questions. Tuned is the same matrix factorization with the learning rate and the number of "
    "epochs that are best on val questions.",
    methods={
        "embedllm_mf": "EmbedLLM's procedure, as published",
        "embedllm_mf_tuned": "EmbedLLM's procedure, tuned",
    },
    command="python -m tests.benchmarks.bench_learning PATH --only comparison --output FILE",
)
ABLATION = Kind(
    name="ablation",
    title="What each part brings",
    contents="what is lost without each part",
    note="Cross-validated on the train and val questions: each row fits, chooses and calibrates anew without one part.",
    methods={
        "process_only": "without the forest",
        "forest_only": "without the Gaussian process, which still teaches the forest",
        "lsa_only": "LSA only, without the language model's vectors",
        "words_only": "blind to what prompts look like",
        "surface_only": "blind to what prompts say",
    },
    command="python -m tests.benchmarks.bench_forecasts PATH --output FILE",
)
KINDS = (COMPARISON, ABLATION)
LOWER = "lower (better), beyond chance, than that of"
HIGHER = "higher (worse), beyond chance, than that of"
UNSURE = "not to be told from that of"


@dataclass(frozen=True)
class Beside:
    """One method's figures, and the default's less these, paired, at 95%; None where they were not counted."""

    name: str
    nll: float
    auc: float | None
    nll_difference_ci95: Interval | None
    auc_difference_ci95: Interval | None


@dataclass(frozen=True)
class Measured:
    """The default and what stands beside it, on the data that the fingerprint names; encoder: empty where unstated."""

    kind: Kind
    fingerprint: str
    encoder: str
    default: Beside
    others: tuple[Beside, ...]

    @property
    def has_auc_differences(self) -> bool:
        return any(one.auc_difference_ci95 is not None for one in self.others)


def read_measured(path: Path, kind: Kind) -> tuple[Measured, ...]:
    """Read what a script wrote, of one data set or several; TrainingError where the file holds nothing of this kind."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        measured = tuple(_measured(one, kind) for title, one in found.items() if title.endswith(f": {kind.name}"))
    except OSError as error:
        raise TrainingError(f"cannot read the {kind.name} from {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise TrainingError(_refusal(path, kind, f" ({type(error).__name__}: {error})")) from error
    if not measured or not all(one.others for one in measured):
        raise TrainingError(_refusal(path, kind))
    return measured


def of_data(measured: Iterable[Measured], fingerprint: str) -> tuple[Measured, ...]:
    """Keep what was measured on the data of this fingerprint, one of each kind; TrainingError where a kind has none."""
    given = tuple(measured)
    kept = []
    for kind in KINDS:
        of_kind = {one.fingerprint: one for one in given if one.kind.name == kind.name}
        if fingerprint in of_kind:
            kept.append(of_kind[fingerprint])
        elif of_kind:
            raise TrainingError(
                f"the {kind.name} was measured on other data ({', '.join(of_kind)}) than the artifact was trained on "
                f"({fingerprint}); `{kind.command}` measures it on PATH, the folder that was imported"
            )
    return tuple(kept)


def sum_up_measured(measured: Measured) -> str:
    """Say which differences in log loss to the default are more than chance."""
    names: dict[str, list[str]] = {LOWER: [], HIGHER: [], UNSURE: []}
    for one in measured.others:
        low, high = one.nll_difference_ci95 or (float("-inf"), float("inf"))
        names[LOWER if high < 0 else HIGHER if low > 0 else UNSURE].append(f"“{one.name}”")
    return "EmbedRouter's log loss is " + "; ".join(f"{how} {', '.join(of)}" for how, of in names.items() if of) + "."


def _measured(figures: Mapping[str, Any], kind: Kind) -> Measured:
    methods = figures["methods"]
    return Measured(
        kind=kind,
        fingerprint=str(figures["dataset"]["fingerprint"]),
        encoder=str(figures.get("protocol", {}).get("encoder", "")),
        default=_beside("EmbedRouter", methods[figures["default"]]),
        others=tuple(_beside(title, methods[name]) for name, title in kind.methods.items() if name in methods),
    )


def _beside(name: str, method: Mapping[str, Any]) -> Beside:
    differences = method.get("default_minus_this_ci95", {})
    auc = method.get("auc")
    return Beside(
        name=name,
        nll=float(method["nll"]),
        auc=None if auc is None else float(auc),
        nll_difference_ci95=_interval(differences.get("nll")),
        auc_difference_ci95=_interval(differences.get("auc")),
    )


def _interval(bounds: list[float] | None) -> Interval | None:
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))


def _refusal(path: Path, kind: Kind, why: str = "") -> str:
    return f"{path} does not hold the figures of --{kind.name}{why}; `{kind.command}` writes them"
