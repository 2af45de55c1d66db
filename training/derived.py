"""Artifacts that derive from a trained one by folding models in: what they know, and how one is made."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from sqlalchemy import Engine

from data import queries
from data.queries import ChampionRow
from router.artifact import Artifact, Manifest, read_artifact, write_artifact
from router.scorer import Scorer, Singles
from router.surface import describe
from training.costs import AnswerLengths, fold_in_lengths, with_row
from training.errors import TrainingError
from training.family import family_of
from training.fold_in import LOG_PRIOR_MODELS, ModelPosterior, family_prior, pool_prior, questions_from_text
from training.posterior import Posterior
from training.repeats import weigh_alone


def what_was_known(champion: Artifact, model_name: str) -> Literal["new", "onboarded", "trained"]:
    """How the champion came to know a model: folded in, trained, or not at all."""
    if model_name not in champion.model_names:
        return "new"
    return "onboarded" if model_name in champion.manifest.onboarded else "trained"


def population_of(champion: Artifact, model_name: str) -> ModelPosterior:
    """What is known of a model by others: the pool's trained ones, and among them those of its family.

    Of a pool of the model alone, nothing else is known than what that one is like.
    """
    trained = _trained_columns(champion)
    trained = [c for c in trained if champion.model_names[c] != model_name] or trained
    embedding = champion.scorer.model_embedding[trained].astype(np.float64)
    bias = champion.scorer.model_bias[trained].astype(np.float64)
    family = family_of(model_name)
    related = [family_of(champion.model_names[c]) == family for c in trained]
    pool = pool_prior(embedding, bias, LOG_PRIOR_MODELS)
    return family_prior(pool, np.hstack([embedding, bias[:, None]])[related], len(trained))


def _trained_columns(champion: Artifact) -> list[int]:
    return [c for c, name in enumerate(champion.model_names) if name not in champion.manifest.onboarded]


def column_of(scorer: Scorer, column: int) -> ModelPosterior:
    """What a scorer knows of one model."""
    theta = np.append(scorer.model_embedding[column], scorer.model_bias[column]).astype(np.float64)
    return ModelPosterior(theta, scorer.model_covariance[column].astype(np.float64))


def prior_of(champion: Artifact, model_name: str) -> ModelPosterior:
    """What the champion's training knew of a model: its own column, or else the pool."""
    if what_was_known(champion, model_name) != "trained":
        return population_of(champion, model_name)
    trained = _trained(champion)
    return column_of(trained.scorer, trained.model_names.index(model_name))


def lacks_lengths(champion: Artifact, model_name: str) -> bool:
    """Whether training knew nothing of the length of a model's answers."""
    if what_was_known(champion, model_name) != "trained":
        return True
    manifest = _trained(champion).manifest
    return manifest.expected_output_tokens[manifest.model_names.index(model_name)] is None


def _trained(champion: Artifact) -> Artifact:
    """The artifact that was trained: a derived one's columns may hold the answers already."""
    if champion.manifest.parent is None:
        return champion
    return read_artifact(champion.folder.parent / champion.manifest.parent)


def derive(
    champion: Artifact, model_name: str, posterior: ModelPosterior, lengths: AnswerLengths | None, root: Path
) -> Artifact:
    """Write the champion's arrays with the model's column added or replaced; the same answers give the same name.

    lengths: of the model's answers, none where they are not to be learned from.
    """
    scorer, manifest, costs = champion.scorer, champion.manifest, champion.costs
    is_new = model_name not in manifest.model_names
    column = len(manifest.model_names) if is_new else manifest.model_names.index(model_name)
    derived = replace(
        scorer,
        model_embedding=with_row(scorer.model_embedding, column, posterior.embedding),
        model_bias=with_row(scorer.model_bias, column, np.float64(posterior.bias)),
        model_covariance=with_row(scorer.model_covariance, column, posterior.covariance),
    )
    if is_new and len(scorer.own_calibration):
        derived = replace(derived, own_calibration=with_row(scorer.own_calibration, column, (1.0, 0.0)))
    if lengths is not None:
        costs = fold_in_lengths(costs, column, lengths, _trained_columns(champion))
    elif is_new:
        costs = costs.with_unknown_model()
    return write_artifact(
        root,
        _manifest(manifest, champion.id, model_name, lengths),
        derived,
        champion.encoder,
        costs,
        champion.logged_questions(),
        champion.abstention,
    )


def _manifest(manifest: Manifest, champion_id: str, model_name: str, lengths: AnswerLengths | None) -> Manifest:
    """Say of the derived artifact whose it is. What was trained, and with what, stays as it was."""
    changes: dict[str, Any] = {"parent": manifest.parent or champion_id}
    names, tokens = manifest.model_names, list(manifest.expected_output_tokens)
    estimated = list(manifest.output_tokens_estimated or [False] * len(names))
    if model_name not in names:
        names = (*names, model_name)
        tokens.append(None)
        estimated.append(False)
        changes |= {"model_names": names, "onboarded": (*manifest.onboarded, model_name)}
    if lengths is not None:
        column = names.index(model_name)
        tokens[column], estimated[column] = round(float(lengths.tokens.mean()), 1), lengths.estimated
    changes |= {"expected_output_tokens": tuple(tokens), "output_tokens_estimated": tuple(estimated)}
    return manifest.model_copy(update=changes)


def questions_of(champion: Artifact, answers: pd.DataFrame) -> Posterior:
    """What is known of answered questions: of logged ones by their outcomes and text, of new ones by text alone."""
    keys = answers["key"].to_numpy(dtype=np.int64)
    prompts = answers["prompt"].astype(str).tolist()
    logged = champion.logged_questions()
    at = np.full(len(keys), -1) if logged is None else logged.rows_of(keys)
    dim = champion.scorer.residual.shape[0]
    mean, covariance = np.zeros((len(keys), dim)), np.zeros((len(keys), dim, dim))
    new = at < 0
    if logged is not None:
        mean[~new] = logged.mean[at[~new]]
        covariance[~new] = logged.covariance()[at[~new]]
    if new.any():
        unseen = [prompts[i] for i in np.flatnonzero(new)]
        by_text = questions_from_text(champion.scorer, champion.encoder.encode(unseen), describe(unseen))
        mean[new], covariance[new] = by_text.mean, by_text.covariance
    return Posterior(mean, covariance)


def weigh_answers(engine: Engine, model_name: str, answers: pd.DataFrame) -> Singles:
    """How many outcomes each of a model's answered questions, as of `answers_of`, is worth; one without repeats."""
    label, n_observations = (answers[name].to_numpy(dtype=np.float64) for name in ("label", "n_observations"))
    weight, repeated = np.ones(len(answers), dtype=np.float32), n_observations > 1
    if repeated.any():
        keys = answers["key"].to_numpy(dtype=np.int64)[repeated]
        others = queries.answers_of_others(engine, model_name, keys.tolist())
        beside = others.pivot(index="key", columns="model", values="label").reindex(keys).to_numpy(dtype=np.float32)
        weight[repeated] = weigh_alone(label[repeated], n_observations[repeated], beside)
    return weight


def require_champion(engine: Engine) -> ChampionRow:
    """The champion; TrainingError where there is none."""
    row = queries.champion(engine)
    if row is None:
        raise TrainingError("there is no champion to fold a model into: `embedrouter train` makes and promotes one")
    return row
