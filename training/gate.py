"""The gate: a challenger becomes champion only if held-out questions say that it is no worse.

Judged on test questions, on which no artifact is fitted, stopped or calibrated and whose split never moves: with the
outcomes as they stood when the champion was made, and with those added since. What the labels themselves look like
is `training.suspicion`'s matter. A refusal is never final: `embedrouter artifacts promote` is for people who know more.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from data import promotions, queries
from data.log import CorrectnessLog
from data.queries import ChampionRow
from data.tables import utc_now
from router.artifact import Artifact, read_artifact
from router.errors import ArtifactFormatError
from training.baselines import model_mean
from training.dataset import Correctness
from training.evaluate import hide_test
from training.held_out import held_out_cells, mean_and_error
from training.metrics import Cells, nll_by_cell
from training.suspicion import Finding, contradicting_labels, familiar_benchmarks, unlikely_labels


@dataclass(frozen=True)
class Verdict:
    """Whether to promote; the sentences that decided it, and every condition's figures."""

    promote: bool
    reasons: tuple[str, ...]
    figures: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, findings: list[Finding]) -> "Verdict":
        """One failed condition refuses, and then only what failed is a reason."""
        failed = tuple(finding.sentence for finding in findings if not finding.passed)
        return cls(
            promote=not failed,
            reasons=failed or tuple(finding.sentence for finding in findings if finding.sentence),
            figures={finding.name: {"passed": finding.passed, **finding.figures} for finding in findings},
        )


def promote_through_gate(engine: Engine, challenger: Artifact, kind: str, reason: str = "") -> Verdict:
    """Judge a challenger against the champion, keep the verdict in SQL, and promote it where the verdict says so.

    kind: train or retrain. Where another promotion comes first, the challenger is judged again, against that one.
    A champion of another release's format cannot serve with this one: the challenger is judged without it.
    ArtifactError where the champion's directory cannot be read for another reason.
    """
    while True:
        row = queries.champion(engine)
        champion, verdict = None, None
        if row is not None:
            try:
                champion = read_artifact(champion_folder(row, challenger.folder.parent))
            except ArtifactFormatError as error:
                verdict = judge_alone(engine, challenger, row, f"there is no comparable champion: {error}")
        verdict = verdict or judge(engine, challenger, champion)
        if champion is not None and champion.id == challenger.id:
            return verdict  # nothing was judged: what it was promoted by stays on record
        gate = {
            "promote": verdict.promote,
            "reasons": list(verdict.reasons),
            "kind": kind,
            "champion": None if row is None else row.artifact_id,
            "judged_at": utc_now().isoformat(timespec="seconds"),
            "figures": verdict.figures,
        }
        promotions.set_gate(engine, challenger.id, gate)
        if not verdict.promote:
            return verdict
        why = "; ".join(filter(None, (reason, *verdict.reasons)))
        if promotions.promote_over(engine, challenger.id, None if row is None else row.promotion_id, kind, why):
            return verdict


def champion_folder(row: ChampionRow, artifacts_root: Path) -> Path:
    """Where the champion lies: as it was registered, else under the same name among its challenger's siblings."""
    registered, moved = Path(row.path), artifacts_root / row.artifact_id
    return moved if moved.is_dir() and not registered.is_dir() else registered


def judge(engine: Engine, challenger: Artifact, champion: Artifact | None) -> Verdict:
    """Compare a challenger with the champion on what SQL holds; nothing is written but cached question vectors."""
    if champion is None:
        return Verdict(True, ("there was no champion to compare with",))
    if champion.id == challenger.id:
        return Verdict(True, ("it is the champion already",))
    began, ended = champion.manifest.outcome_watermark, challenger.manifest.outcome_watermark
    before = _test_part(queries.read_log(engine, up_to_outcome=began))
    added = Correctness.from_log(queries.read_log(engine, after_outcome=began, up_to_outcome=ended))
    additions = queries.additions(engine, began, ended)
    shared = sorted(set(challenger.model_names) & set(champion.model_names) & set(before.model_names))
    by_champion = held_out_cells(engine, champion, before, shared)
    familiar = familiar_benchmarks(by_champion, before.benchmarks)
    return Verdict.of(
        [
            _keeps_the_models(engine, challenger, champion),
            no_worse_as_it_stood(held_out_cells(engine, challenger, before, shared), by_champion, before.groups),
            _better_than_model_mean_since(engine, challenger, added.rows(added.part("test"))),
            contradicting_labels(additions, queries.repeat_rate(engine, began)),
            unlikely_labels(engine, champion, familiar, added, additions),
        ]
    )


def judge_alone(engine: Engine, challenger: Artifact, champion: ChampionRow, why: str) -> Verdict:
    """Judge a challenger on what was added since a champion that cannot be asked, without its forecasts.

    What needs them is not applied: without a promotion nothing could serve. why: the sentence that says so.
    """
    began, ended = champion.outcome_watermark, challenger.manifest.outcome_watermark
    added = Correctness.from_log(queries.read_log(engine, after_outcome=began, up_to_outcome=ended))
    return Verdict.of(
        [
            Finding("champion", True, why, {"artifact": champion.artifact_id}),
            _better_than_model_mean_since(engine, challenger, added.rows(added.part("test"))),
            contradicting_labels(queries.additions(engine, began, ended), queries.repeat_rate(engine, began)),
        ]
    )


def _keeps_the_models(engine: Engine, challenger: Artifact, champion: Artifact) -> Finding:
    """Every model that the champion forecasts, that has outcomes and is not retired, must be forecast still."""
    live = {model.name for model in queries.pool_models(engine) if model.n_outcomes and not model.retired}
    lost = sorted(live & set(champion.model_names) - set(challenger.model_names))
    if not lost:
        return Finding("models", True, "", {"lost": []})
    sentence = f"it does not know {', '.join(lost)}, which the champion forecasts and the logs have outcomes of"
    return Finding("models", False, sentence, {"lost": lost})


def no_worse_as_it_stood(challenger: Cells, champion: Cells, groups: NDArray[np.int64]) -> Finding:
    """Condition (a): the paired NLL difference is at most its standard error, on what the champion could have seen.

    challenger, champion: forecasts of the same cells; groups: each question's near-duplicate group.
    """
    name = "as_it_stood"
    n_cells = len(champion.label)
    if not n_cells:
        sentence = "no held-out outcome of a model that both know, so nothing shows that it is no worse"
        return Finding(name, False, sentence, {"n_cells": 0})
    challenger_nll, champion_nll = nll_by_cell(challenger), nll_by_cell(champion)
    difference, error = mean_and_error(challenger_nll - champion_nll, groups[champion.question])
    passed = difference <= 0 or difference <= error  # an unknown error, NaN, excuses nothing
    measured = (
        f"held-out NLL {challenger_nll.mean():.4f} against the champion's {champion_nll.mean():.4f} on {n_cells:,} "
        f"outcomes as they stood when the champion was made: "
    )
    if difference == 0:
        measured += "no difference"
    elif difference < 0:
        measured += f"better by {-difference:.4f} ({_told(error)})"
    elif np.isnan(error):
        measured += f"worse by {difference:.4f}, and {_told(error)} that would excuse it"
    else:
        comparison = "no more than" if passed else "more than"
        measured += f"worse by {difference:.4f}, {comparison} its standard error {error:.4f}"
    figures = {
        "n_cells": n_cells,
        "challenger_nll": float(challenger_nll.mean()),
        "champion_nll": float(champion_nll.mean()),
        "difference": difference,
        "standard_error": None if np.isnan(error) else error,
    }
    return Finding(name, passed, measured, figures)


def _better_than_model_mean_since(engine: Engine, challenger: Artifact, test: Correctness) -> Finding:
    """Condition (b): on what was added since, the challenger beats each model's mean over all train outcomes.

    It is the only condition that models unknown to the champion meet. Without an added test outcome it is not applied.
    """
    name = "since"
    known = sorted(set(challenger.model_names) & set(test.model_names))
    cells = held_out_cells(engine, challenger, test, known)
    if not len(cells.label):
        sentence = "no held-out outcome was added since the champion was made, so new ones decide nothing"
        return Finding(name, True, sentence, {"n_cells": 0})
    everything = hide_test(Correctness.from_log(queries.read_log(engine)))
    rates = dict(zip(everything.model_names, model_mean(everything, np.zeros((0, 0), np.float32))[0], strict=True))
    columns = [test.model_names.index(model) for model in known]
    baseline = np.tile([rates[model] for model in known], (test.n_questions, 1))
    mean = nll_by_cell(Cells.from_grid(test.label[:, columns], baseline))
    loss = nll_by_cell(cells)
    difference, error = mean_and_error(loss - mean, test.groups[cells.question])
    passed = difference < 0
    n_questions = len(np.unique(cells.question))
    sentence = (
        f"on the {len(loss):,} held-out outcomes ({n_questions:,} questions) added since, NLL {loss.mean():.4f} "
        f"against model mean's {mean.mean():.4f}: "
        + (f"better by {-difference:.4f}" if passed else f"not better, by {difference:.4f}")
        + f" ({_told(error)})"
    )
    figures = {
        "n_cells": len(loss),
        "n_questions": n_questions,
        "challenger_nll": float(loss.mean()),
        "model_mean_nll": float(mean.mean()),
        "difference": difference,
        "standard_error": None if np.isnan(error) else error,
    }
    return Finding(name, passed, sentence, figures)


def _told(error: float) -> str:
    """A standard error in words; NaN is that of a single group."""
    if np.isnan(error):
        return "from one group of near-duplicate questions no standard error can be told"
    return f"standard error {error:.4f}"


def _test_part(log: CorrectnessLog) -> Correctness:
    data = Correctness.from_log(log)
    return data.rows(data.part("test"))
