"""Onboard a model: fold it in from its answers, without a retrain, and let the pool serve with it.

The champion's arrays and one more column make a new artifact, which is promoted over it; a running server picks it up.
The answers lie in SQL as outcomes like any others, so that the next training learns the model as it does the rest.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from data import promotions, queries
from data.importers.answers import import_answers
from data.importers.intake import REJECTS_FOLDER, ImportSummary
from data.queries import ChampionRow
from router.artifact import Artifact, read_artifact
from router.pool import AUTO
from router.scorer import Singles
from training.contradictions import Contradictions, find_contradictions, warn_of
from training.costs import AnswerLengths
from training.derived import (
    column_of,
    derive,
    lacks_lengths,
    prior_of,
    questions_of,
    require_champion,
    weigh_answers,
    what_was_known,
)
from training.errors import TrainingError
from training.fold_in import (
    Accuracy,
    ModelPosterior,
    answers_to_halve,
    expect_accuracies,
    fold_in,
)
from training.gate import champion_folder
from training.outliers import fold_in_outlier
from training.posterior import Posterior

Floats = NDArray[np.float64]
Progress = Callable[[str], None]

KIND = "onboard"
N_NEAREST = 3
UNNAMED = "(no benchmark)"


@dataclass(frozen=True)
class Neighbour:
    """A model of the pool, and how far its P(correct) lies from the new one's: root mean square over questions."""

    model: str
    distance: float


@dataclass(frozen=True)
class Onboarded:
    """What became of an onboarding.

    was: "new", "onboarded" or "trained", what the champion knew of the model before; n_answers: questions that were
    folded in, those of all runs since the last training; n_held_out: answers to test questions and near-duplicates
    of these, kept for comparisons; promoted: whether the artifact is another than the champion was; fold_in_s: the
    fold-in alone.
    accuracy, by_benchmark: on the questions that the champion was fitted on; more_answers: to halve the error of the
    accuracy, none where they are countless. expected_output_tokens: the model's usual answer, none where no answer was
    ever counted; output_tokens_estimated: whether it was taken from characters, some of it at least; n_counted: the
    answers whose lengths were folded in, 0 also where training knows the model's lengths. contradictions: among its
    answers, and between them and the logs that training read; warnings: what to say of them.
    """

    model: str
    was: str
    retired: bool
    imported: ImportSummary
    n_answers: int
    n_held_out: int
    artifact: str
    parent: str
    promoted: bool
    fold_in_s: float
    accuracy: Accuracy | None
    by_benchmark: dict[str, Accuracy]
    nearest: tuple[Neighbour, ...]
    more_answers: int | None
    expected_output_tokens: float | None
    output_tokens_estimated: bool
    n_counted: int
    contradictions: Contradictions
    warnings: tuple[str, ...]


def onboard(
    engine: Engine,
    artifacts_root: Path,
    model_name: str,
    answers: Path,
    *,
    rejects_folder: Path = REJECTS_FOLDER,
    on_progress: Progress = lambda _: None,
) -> Onboarded:
    """Import a model's answers, fold it in, and promote the artifact that knows it.

    Where the champion was trained on all of them it stays. TrainingError without a champion, or without an answer
    that may be folded in; the answers are in SQL all the same.
    """
    if model_name == AUTO:
        raise TrainingError(f"no model can be called {AUTO}: that name asks the router to choose")
    on_progress("reading the champion")
    require_champion(engine)
    on_progress("importing the answers")
    imported = import_answers(engine, answers, model_name, rejects_folder=rejects_folder)
    row = next((r for r in queries.pool_models(engine) if model_name in (r.name, *r.aliases)), None)
    if row is None:
        raise TrainingError(f"{answers} holds no answer that can be used{_why(imported)}")
    while True:
        champion_row = require_champion(engine)
        champion = read_artifact(champion_folder(champion_row, artifacts_root))
        on_progress("folding in")
        evidence = _Evidence.read(engine, champion, row.name, imported)
        if evidence.is_empty:
            artifact, folded, lengths = champion, _as_known(champion, row.name), None
            break
        folded = _fold(champion, row.name, evidence)
        lengths = evidence.lengths(champion, row.name)
        artifact = derive(champion, row.name, folded.posterior, lengths, artifacts_root)
        if artifact.id == champion.id or _promote(engine, artifact, champion_row, row.name, evidence):
            break
    on_progress("forecasting")
    return _sum_up(engine, artifact, champion, folded, evidence, lengths, row.name, imported, retired=row.retired)


def _as_known(champion: Artifact, model_name: str) -> "_Folded":
    """What the champion knows of a model as it is."""
    return _Folded(column_of(champion.scorer, champion.model_names.index(model_name)), 0.0)


@dataclass(frozen=True)
class _Evidence:
    """A model's answers since the champion's training, on questions that may be learned from; none where it knew all.

    questions: what is known of them; label: (N,), means over repeats; weight: (N,), how many outcomes each is worth, as
    of `training.repeats`; n_held_out: answers to test questions and near-duplicates, left out; prompts: N;
    output_tokens: (N,), NaN where uncounted; tokens_estimated: (N,), where they were taken from characters.
    """

    questions: Posterior
    label: Floats
    weight: Singles
    n_held_out: int
    prompts: list[str]
    output_tokens: Floats
    tokens_estimated: NDArray[np.bool_]

    @classmethod
    def read(cls, engine: Engine, champion: Artifact, model_name: str, imported: ImportSummary) -> "_Evidence":
        every = queries.answers_of(engine, model_name, champion.manifest.outcome_watermark)
        usable = every[~every["key"].isin(queries.held_out_questions(engine))].reset_index(drop=True)
        n_held_out = len(every) - len(usable)
        knows_all = what_was_known(champion, model_name) == "trained" and not len(every) and imported.n_repeated > 0
        if not len(usable) and not knows_all:
            if n_held_out:
                why = (
                    f": all {n_held_out} are to test questions or near-duplicates of these, which are kept for "
                    "comparisons; answer others too"
                )
            else:
                why = _why(imported)
            raise TrainingError(f"{model_name} has no answer that can be folded in{why}")
        return cls(
            questions_of(champion, usable),
            usable["label"].to_numpy(dtype=np.float64),
            weigh_answers(engine, model_name, usable),
            n_held_out,
            usable["prompt"].astype(str).tolist(),
            usable["output_tokens"].to_numpy(dtype=np.float64),
            usable["tokens_estimated"].to_numpy(dtype=np.bool_),
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is none, because the champion was trained on all answers."""
        return not len(self.label)

    def lengths(self, champion: Artifact, model_name: str) -> AnswerLengths | None:
        """The counted answers with their prompts' vectors; none where there are none, or training knows lengths."""
        counted = np.flatnonzero(~np.isnan(self.output_tokens))
        if not len(counted) or not lacks_lengths(champion, model_name):
            return None
        prompts = [self.prompts[i] for i in counted]
        vectors = champion.encoder.encode(prompts)
        return AnswerLengths(vectors, prompts, self.output_tokens[counted], bool(self.tokens_estimated.any()))


@dataclass(frozen=True)
class _Folded:
    posterior: ModelPosterior
    seconds: float


def _fold(champion: Artifact, model_name: str, evidence: _Evidence) -> _Folded:
    prior = prior_of(champion, model_name)
    fold = fold_in if what_was_known(champion, model_name) == "trained" else fold_in_outlier
    started = time.perf_counter()
    posterior = fold(prior, evidence.questions, evidence.label, evidence.weight)
    return _Folded(posterior, time.perf_counter() - started)


def _promote(engine: Engine, artifact: Artifact, over: ChampionRow, model_name: str, evidence: _Evidence) -> bool:
    """List the artifact and make it champion, unless another was promoted meanwhile.

    Its metrics are those of the trained artifact that it derives from, and name it: nothing was measured on this one.
    """
    manifest = artifact.manifest
    parent = next((one for one in queries.artifacts(engine) if one.id == over.artifact_id), None)
    promotions.add_artifact(
        engine,
        artifact.id,
        path=str(artifact.folder.resolve()),
        encoder_fingerprint=manifest.encoder_fingerprint,
        data_fingerprint=manifest.data_fingerprint,
        outcome_watermark=manifest.outcome_watermark,
        metrics=(manifest.metrics if parent is None else parent.metrics) | {"measured_on": manifest.parent},
    )
    reason = f"{model_name} folded in from {len(evidence.label)} answers"
    return promotions.promote_over(engine, artifact.id, over.promotion_id, KIND, reason)


def _sum_up(
    engine: Engine,
    artifact: Artifact,
    champion: Artifact,
    folded: _Folded,
    evidence: _Evidence,
    lengths: AnswerLengths | None,
    model_name: str,
    imported: ImportSummary,
    *,
    retired: bool,
) -> Onboarded:
    accuracy, more = None, None
    by_benchmark: dict[str, Accuracy] = {}
    nearest: tuple[Neighbour, ...] = ()
    logged = champion.logged_questions()
    if logged is not None and len(logged.keys):
        questions = Posterior(logged.mean.astype(np.float64), logged.covariance())
        benchmark = queries.question_names(engine).set_index("key")["benchmark"].reindex(logged.keys).fillna("")
        names, group = np.unique(benchmark.to_numpy(dtype=np.str_), return_inverse=True)
        slope, offset = champion.scorer.slope, champion.scorer.offset
        everything = np.zeros(len(logged.keys), dtype=np.int64)
        (accuracy,) = expect_accuracies(folded.posterior, questions, everything, slope=slope, offset=offset)
        each = expect_accuracies(folded.posterior, questions, group, slope=slope, offset=offset)
        by_benchmark = {name or UNNAMED: one for name, one in zip(names.tolist(), each, strict=True)}
        nearest = _nearest(artifact, model_name, questions)
        more = answers_to_halve(folded.posterior, questions)
    manifest, column = artifact.manifest, artifact.model_names.index(model_name)
    counts = queries.answer_counts(engine, model_name, champion.manifest.outcome_watermark)
    contradictions = find_contradictions(counts)
    return Onboarded(
        model=model_name,
        was=what_was_known(champion, model_name),
        retired=retired,
        imported=imported,
        n_answers=len(evidence.label),
        n_held_out=evidence.n_held_out,
        artifact=artifact.id,
        parent=champion.id,
        promoted=artifact.id != champion.id,
        fold_in_s=folded.seconds,
        accuracy=accuracy,
        by_benchmark=by_benchmark,
        nearest=nearest,
        more_answers=more,
        expected_output_tokens=manifest.expected_output_tokens[column],
        output_tokens_estimated=bool(manifest.output_tokens_estimated and manifest.output_tokens_estimated[column]),
        n_counted=0 if lengths is None else len(lengths.tokens),
        contradictions=contradictions,
        warnings=warn_of(contradictions, model_name, imported.source),
    )


def _nearest(artifact: Artifact, model_name: str, questions: Posterior) -> tuple[Neighbour, ...]:
    """The models whose P(correct) on the logged questions lies nearest."""
    p = np.array(
        [column_of(artifact.scorer, c).p_correct(questions) for c in range(len(artifact.model_names))]
    )  # (M, N)
    distance = np.sqrt(np.square(p - p[artifact.model_names.index(model_name)]).mean(axis=1))
    order = [c for c in np.argsort(distance, kind="stable") if artifact.model_names[c] != model_name]
    return tuple(Neighbour(artifact.model_names[c], float(distance[c])) for c in order[:N_NEAREST])


def _why(imported: ImportSummary) -> str:
    if not imported.n_rejected:
        return ": the file has no rows"
    shown: Sequence[str] = imported.first_rejects[:1]
    return f": {imported.n_rejected} rows were rejected, the first at {shown[0]}"
