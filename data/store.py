"""The writes of logs: questions, outcomes, imports, the pool, and what serving and training add to them.

Each function is one transaction, and repeating it with the same content changes nothing. Reads are in `data.queries`.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, func, select, update

from data.database import writing
from data.errors import EmbedRouterError
from data.model_names import name_fault, shown_url, url_fault, variable_fault
from data.near_duplicates import sign
from data.observations import ModelRef, NewQuestion, Observation, QuestionRef, Recorded, prompt_sha256
from data.splits import pack_signature
from data.statements import among, insert_new, insert_plain, pairs_table
from data.tables import (
    Artifact,
    Decision,
    Import,
    Model,
    ModelAlias,
    Outcome,
    Question,
    QuestionVector,
    utc_now,
)

OBSERVED = ("label", "score", "graded", "cost_usd", "input_tokens", "output_tokens", "output_chars", "latency_s")


class ModelFields(TypedDict, total=False):
    """What can be set of a model; absent is unchanged. `aliases` are added to those it has."""

    usd_per_1m_input: float | None
    usd_per_1m_output: float | None
    context_window: int | None
    capabilities: list[str]
    upstream_url: str | None
    upstream_model: str | None
    upstream_key_env: str | None
    retired: bool
    aliases: Sequence[str]


# Questions and outcomes


def add_questions(engine: Engine, questions: Sequence[NewQuestion]) -> list[QuestionRef]:
    """Store the questions that are new, and refer to all of them, in order.

    They are not read by anything until `data.splits.group_questions` has given them their groups and splits.
    """
    identities = [(question.external_id, prompt_sha256(question.prompt)) for question in questions]
    with writing(engine, lock="questions") as connection:
        known = _question_ids(connection, identities)
        new = {
            identity: question
            for identity, question in zip(identities, questions, strict=True)
            if identity not in known
        }
        if new:
            signatures = sign([question.prompt for question in new.values()])
            now = utc_now()
            rows = [
                {
                    "external_id": external_id,
                    "prompt": question.prompt,
                    "prompt_sha256": sha256,
                    "benchmark": question.benchmark,
                    "subcategory": question.subcategory,
                    "gold": question.gold,
                    "split": question.split,
                    "minhash": pack_signature(signature),
                    "created_at": now,
                }
                for ((external_id, sha256), question), signature in zip(new.items(), signatures, strict=True)
            ]
            insert_new(connection, Question, rows)
            known |= _question_ids(connection, list(new))
    return [QuestionRef(known[identity], *identity) for identity in identities]


def record_outcomes(
    engine: Engine, source: str, observations: Sequence[Observation], *, import_id: int | None = None
) -> Recorded:
    """Store the observations that are new to their source; one transaction, with the import's tally."""
    with writing(engine, lock="outcomes") as connection:  # ids must appear in their order: watermarks rely on it
        keyed = {observation.key(source): observation for observation in observations}
        stored = _stored_keys(connection, list(keyed))
        new = {key: observation for key, observation in keyed.items() if key not in stored}
        recorded = Recorded(
            n_new=len(new),
            n_repeated=len(observations) - len(new),
            n_resumed=sum(1 for by_import in stored.values() if import_id is not None and by_import == import_id),
            n_conflicting=_count_conflicts(connection, list(new.values())),
        )
        if new:
            now = utc_now()
            rows = [_outcome_row(key, seen, source, import_id) | {"created_at": now} for key, seen in new.items()]
            insert_outcomes(connection, rows)
            if import_id is not None:
                connection.execute(
                    update(Import)
                    .where(Import.id == import_id)
                    .values(
                        n_new=Import.n_new + recorded.n_new,
                        n_conflicting=Import.n_conflicting + recorded.n_conflicting,
                    )
                )
    return recorded


def insert_outcomes(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert outcomes that are new, with ids above every one that an artifact may have seen.

    SQLite would give the ids of outcomes that were forgotten out again, and watermarks take what is below them for
    known.
    """
    if connection.dialect.name == "sqlite":
        last = connection.execute(select(func.max(Outcome.id))).scalar() or 0
        seen = connection.execute(select(func.max(Artifact.outcome_watermark))).scalar() or 0
        if seen > last:
            rows = [{**row, "id": id_} for id_, row in enumerate(rows, start=seen + 1)]
    insert_new(connection, Outcome, rows)


def begin_import(engine: Engine, file_format: str, source: str, path: str, content_sha256: str) -> int:
    """Open the import of one file set; the same content again is the same import."""
    identity = {"format": file_format, "source": source, "content_sha256": content_sha256}
    with writing(engine) as connection:
        row = identity | {"path": path, "started_at": utc_now()}
        row |= {"n_new": 0, "n_repeated": 0, "n_conflicting": 0, "n_rejected": 0}
        insert_new(connection, Import, [row])
        return int(connection.execute(select(Import.id).filter_by(**identity)).scalar_one())


def finish_import(engine: Engine, import_id: int, *, n_repeated: int, n_rejected: int) -> None:
    """Close an import, once: repeating a finished one changes nothing."""
    with writing(engine) as connection:
        connection.execute(
            update(Import)
            .where(Import.id == import_id, Import.finished_at.is_(None))
            .values(n_repeated=n_repeated, n_rejected=n_rejected, finished_at=utc_now())
        )


# The pool


def ensure_models(engine: Engine, names: Iterable[str]) -> dict[str, ModelRef]:
    """Refer to each model by the name that a log calls it; unknown ones are created."""
    wanted = list(dict.fromkeys(names))
    _check_names(wanted)
    with writing(engine, lock="models") as connection:
        found = _find_models(connection, wanted)
        missing = [name for name in wanted if name not in found]
        if missing:
            now = utc_now()
            rows = [{"name": name, "capabilities": [], "retired": False, "created_at": now} for name in missing]
            insert_new(connection, Model, rows)
            found |= _find_models(connection, missing)
    return found


def fill_prices(engine: Engine, prices: Mapping[int, ModelFields]) -> None:
    """Give models, by id, the prices and context windows that a log states, where none was known."""
    with writing(engine, lock="models") as connection:
        for model_id, fields in prices.items():
            for column in ("usd_per_1m_input", "usd_per_1m_output", "context_window"):
                if fields.get(column) is not None:
                    unknown = (Model.id == model_id, getattr(Model, column).is_(None))
                    connection.execute(update(Model).where(*unknown).values({column: fields[column]}))


def set_model(engine: Engine, name: str, **fields: Unpack[ModelFields]) -> bool:
    """Change what is known of a model, creating it when it is new; whether it was created."""
    aliases = fields.pop("aliases", ())
    _check_names((name, *aliases))
    _check_model(name, fields)
    with writing(engine, lock="models") as connection:
        found = _find_models(connection, [name])
        if name in found and found[name].name != name:
            raise EmbedRouterError(f"{name} is an alias of {found[name].name}: set that one")
        if name not in found:
            row = {"name": name, "capabilities": [], "retired": False, "created_at": utc_now()}
            insert_new(connection, Model, [row])
        model_id = _find_models(connection, [name])[name].id
        if fields:
            connection.execute(update(Model).where(Model.id == model_id).values(**fields))
        for alias, holder in _find_models(connection, list(aliases)).items():
            if holder.id != model_id:
                whose = "another model's name" if holder.name == alias else f"an alias of {holder.name}"
                raise EmbedRouterError(f"{alias} cannot be an alias of {name}: it is {whose}")
        insert_new(connection, ModelAlias, [{"alias": alias, "model_id": model_id} for alias in {*aliases} - {name}])
    return name not in found


# Vectors and decisions


def save_question_vectors(engine: Engine, fingerprint: str, vectors: Mapping[int, NDArray[np.float32]]) -> None:
    """Keep questions' vectors, each of shape (d,), under their encoder's fingerprint."""
    rows = [
        {"question_id": question_id, "encoder_fingerprint": fingerprint, "vector": vector.astype("<f4").tobytes()}
        for question_id, vector in vectors.items()
    ]
    with writing(engine) as connection:
        insert_new(connection, QuestionVector, rows)


def add_decisions(engine: Engine, rows: list[dict[str, Any]]) -> None:
    """Store routed requests, one dict of Decision's columns each; an id that is there already is left alone."""
    if not rows:
        return
    columns = dict.fromkeys(chain.from_iterable(rows))
    defaults = columns | {"policy_settings": {}, "streamed": False, "created_at": utc_now()}
    filled = [defaults | row for row in rows]
    with writing(engine) as connection:
        insert_plain(connection, Decision, filled)


# Statements


def _question_ids(connection: Connection, identities: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Find questions by (external_id, prompt_sha256)."""
    statement = select(Question.external_id, Question.prompt_sha256, Question.id)
    statement = statement.where(among(connection, Question.external_id, [first for first, _ in identities]))
    return {(row.external_id, row.prompt_sha256): row.id for row in connection.execute(statement)}


def _stored_keys(connection: Connection, keys: Sequence[str]) -> dict[str, int | None]:
    """Which observation keys are stored, and by which import."""
    statement = select(Outcome.observation_key, Outcome.import_id)
    statement = statement.where(among(connection, Outcome.observation_key, keys))
    return {row.observation_key: row.import_id for row in connection.execute(statement)}


def _count_conflicts(connection: Connection, new: Sequence[Observation]) -> int:
    """How many new observations stand against another, stored or earlier among these, with the other label."""
    labels = _stored_labels(connection, sorted({(one.question.id, one.model.id) for one in new}))
    n_conflicting = 0
    for observation in new:
        seen = labels.setdefault((observation.question.id, observation.model.id), set())
        n_conflicting += (1 - observation.label) in seen
        seen.add(observation.label)
    return n_conflicting


def _stored_labels(connection: Connection, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], set[int]]:
    """The labels stored for each pair of a question's and a model's id."""
    wanted = pairs_table(connection, pairs)
    statement = select(Outcome.question_id, Outcome.model_id, Outcome.label).distinct()
    statement = statement.where(Outcome.question_id == wanted.first, Outcome.model_id == wanted.second)
    labels: dict[tuple[int, int], set[int]] = {}
    for question_id, model_id, label in connection.execute(statement):
        labels.setdefault((question_id, model_id), set()).add(label)
    return labels


def _outcome_row(key: str, seen: Observation, source: str, import_id: int | None) -> dict[str, Any]:
    return {
        "question_id": seen.question.id,
        "model_id": seen.model.id,
        "import_id": import_id,
        "source": source,
        "observation_key": key,
        **{column: getattr(seen, column) for column in OBSERVED},
    }


def _find_models(connection: Connection, names: Sequence[str]) -> dict[str, ModelRef]:
    """Find models by name, and by alias where no model has that name."""
    by_alias = select(ModelAlias.alias, Model.id, Model.name).join(Model)
    found = {
        row.alias: ModelRef(row.id, row.name)
        for row in connection.execute(by_alias.where(among(connection, ModelAlias.alias, names)))
    }
    by_name = select(Model.id, Model.name).where(among(connection, Model.name, names))
    return found | {row.name: ModelRef(row.id, row.name) for row in connection.execute(by_name)}


def _check_model(name: str, fields: ModelFields) -> None:
    if len(name) > 256:
        raise EmbedRouterError(f"a model's name has 1 to 256 characters, got {len(name)}")
    for column in ("usd_per_1m_input", "usd_per_1m_output"):
        price = fields.get(column)
        if isinstance(price, float | int) and not 0 <= price < float("inf"):
            raise EmbedRouterError(f"{column} of {name} cannot be {price}: a price is 0 or more")
    window = fields.get("context_window")
    if window is not None and window < 1:
        raise EmbedRouterError(f"context_window of {name} cannot be {window}: it is 1 token or more")
    url = fields.get("upstream_url")
    if url is not None and (fault := url_fault(url)):
        key = "; its key is named by --upstream-key-env" if "@" in url else ""
        raise EmbedRouterError(f"upstream_url of {name} cannot be {shown_url(url)}: {fault}{key}")
    variable = fields.get("upstream_key_env")
    if variable is not None and (fault := variable_fault(variable)):
        raise EmbedRouterError(f"upstream_key_env of {name} cannot be what was given: {fault}")


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if fault := name_fault(name):
            raise EmbedRouterError(fault)
