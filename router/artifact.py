"""An artifact: everything needed to score, as an immutable directory named by its content.

    <id>/manifest.json         what it is: models in column order, encoder, fingerprints, metrics
    <id>/scorer.safetensors    the scorer's tensors
    <id>/abstention.safetensors how sure a choice has to be for a limit on errors
    <id>/questions.safetensors what was learned of the logged questions; serving leaves it on disk
    <id>/encoder/              whatever the encoder saved of itself

Arrays and JSON only, never pickle. Nothing here knows SQL: which artifact is champion is `data.store`'s matter.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load_file, save_file

from router.abstention import Abstention
from router.costs import Costs
from router.encoder.base import Encoder, Vectors
from router.encoder.registry import open_encoder
from router.errors import ArtifactError, ArtifactFormatError
from router.logged import LoggedQuestions
from router.scorer import Forecast, Scorer
from router.surface import describe

FORMAT_VERSION = 2
QUESTIONS = "questions.safetensors"
ABSTENTION = "abstention.safetensors"


class Manifest(BaseModel):
    """What an artifact says of itself.

    expected_output_tokens: each model's mean, none where unknown; output_tokens_estimated: whether these and the
    forecasts of lengths were taken from characters. parent: the artifact whose arrays it has but for the models in
    `onboarded`, which were folded in from few answers; watermark and metrics are then the parent's.
    max_novelty: beyond it, a prompt lies outside what the logs cover; none where an earlier release never measured it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    model_names: tuple[str, ...]
    expected_output_tokens: tuple[float | None, ...]
    output_tokens_estimated: tuple[bool, ...] | None = None
    encoder: str
    encoder_fingerprint: str
    data_fingerprint: str
    outcome_watermark: int
    seed: int
    metrics: dict[str, Any]
    parent: str | None = None
    onboarded: tuple[str, ...] = ()
    max_novelty: float | None = None


@dataclass(frozen=True)
class Expectation:
    """What a choice needs to know of prompts.

    p_correct, with the answers' expected output_tokens: of shape (n_prompts, n_models); novelty: of shape (n_prompts,).
    """

    p_correct: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    novelty: NDArray[np.float32]


@dataclass(frozen=True)
class Artifact:
    """A loaded artifact: text in, P(correct) of every model out, and what its answer will take.

    Without `abstention`, which earlier artifacts lack, no limit on errors can be kept.
    """

    id: str
    folder: Path
    manifest: Manifest
    scorer: Scorer
    encoder: Encoder
    costs: Costs
    abstention: Abstention | None = None

    @property
    def model_names(self) -> tuple[str, ...]:
        return self.manifest.model_names

    def p_correct(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Forecast prompts: probabilities of shape (n_prompts, n_models), columns in the order of `model_names`."""
        return self.p_correct_of(self.encoder.encode(prompts), prompts)

    def p_correct_of(self, vectors: Vectors, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Forecast prompts whose vectors, of shape (n_prompts, dim), the encoder has made already."""
        return self.scorer.p_correct(vectors, describe(prompts))

    def forecast_of(self, vectors: Vectors, prompts: Sequence[str]) -> tuple[Forecast, NDArray[np.float64]]:
        """P(correct) with intervals and novelty, and expected lengths of answers as of `output_tokens_of`, at once."""
        surface = describe(prompts)
        return self.scorer.forecast(vectors, surface), self.costs.lengths.tokens(vectors, surface)

    def expectation_of(self, vectors: Vectors, prompts: Sequence[str]) -> Expectation:
        """What a choice needs, for a fraction of the time that a forecast with intervals takes."""
        surface, lengths, scorer = describe(prompts), self.costs.lengths, self.scorer
        points = scorer.features(vectors, surface)
        similarity = scorer.similarity(points)
        tokens = lengths.tokens_at(points) if self._shares_features else lengths.tokens(vectors, surface)
        return Expectation(scorer.p_correct_at(points, similarity), tokens, scorer.novelty(similarity))

    @cached_property
    def _shares_features(self) -> bool:
        """Whether the lengths' forecast reads the very points that the scorer does, as it nearly always does."""
        ours, theirs = self.scorer.features, self.costs.lengths.features
        return all(np.array_equal(getattr(ours, f.name), getattr(theirs, f.name)) for f in fields(ours))

    def output_tokens_of(self, vectors: Vectors, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Expect the lengths of answers, of shape (n_prompts, n_models); NaN where a model's are unknown."""
        return self.costs.lengths.tokens(vectors, describe(prompts))

    def logged_questions(self) -> LoggedQuestions | None:
        """Read what was learned of the logged questions; none where the artifact was written without."""
        path = self.folder / QUESTIONS
        return LoggedQuestions.from_tensors(load_file(path)) if path.is_file() else None


def write_artifact(
    root: Path,
    manifest: Manifest,
    scorer: Scorer,
    encoder: Encoder,
    costs: Costs | None = None,
    questions: LoggedQuestions | None = None,
    abstention: Abstention | None = None,
) -> Artifact:
    """Write an artifact under `root` and return it; the same content twice is the same directory.

    Without `costs`, every answer is expected to be as long as the manifest says of its model.
    """
    costs = costs or Costs.from_means(manifest.expected_output_tokens)
    if costs.n_models != len(manifest.model_names):
        raise ValueError(f"costs of {costs.n_models} models for the {len(manifest.model_names)} of the manifest")
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=root))
    try:
        (draft / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        save_file(scorer.tensors(), draft / "scorer.safetensors")
        if questions is not None:
            save_file(questions.tensors(), draft / QUESTIONS)
        save_file(costs.tensors(), draft / "costs.safetensors")
        if abstention is not None:
            save_file(abstention.tensors(), draft / ABSTENTION)
        (draft / "encoder").mkdir()
        encoder.save(draft / "encoder")
        artifact_id = content_id(draft)
        folder = root / artifact_id
        if not folder.exists():
            _flush(draft)
            draft.chmod(0o755)
            draft.rename(folder)  # atomic: a reader sees all of it or nothing
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Artifact(artifact_id, folder, manifest, scorer, encoder, costs, abstention)


def read_artifact(folder: Path) -> Artifact:
    """Read an artifact; ArtifactError where it is absent or not what its name says, ArtifactFormatError where old."""
    try:
        text = (folder / "manifest.json").read_text(encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"no artifact at {folder}: {error.strerror}; `embedrouter train` makes one") from error
    said = json.loads(text)
    if (version := said.get("format_version")) != FORMAT_VERSION:
        why = f"{folder} has format version {version}, this release reads {FORMAT_VERSION}: train again"
        raise ArtifactFormatError(why, said.get("encoder"))
    if (found := content_id(folder)) != folder.name:
        raise ArtifactError(f"{folder} was changed after it was written: its content is {found}")
    manifest = Manifest.model_validate_json(text)
    scorer = Scorer.from_tensors(load_file(folder / "scorer.safetensors"))
    if (costs_path := folder / "costs.safetensors").exists():
        costs = Costs.from_tensors(load_file(costs_path))
    else:
        costs = Costs.from_means(manifest.expected_output_tokens)  # as artifacts were before answers were forecast
    path = folder / ABSTENTION
    abstention = Abstention.from_tensors(load_file(path)) if path.exists() else None
    return Artifact(folder.name, folder, manifest, scorer, open_encoder(folder / "encoder"), costs, abstention)


def content_id(folder: Path) -> str:
    """Name a directory by its content: 16 hexadecimal digits over every file's path and bytes."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
