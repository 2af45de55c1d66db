"""Train, val or test: fixed once for each question, near-duplicates together.

A question joins the group of a stored near-duplicate and takes its split; where logs stated several splits within a
group, that of an equal prompt comes first. A new group's split is what the log states, or else comes from the hash of
its founder. What was given once is never moved by later logs.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, bindparam, exists, select, update

from data.database import writing
from data.near_duplicates import SIGNATURE_LENGTH, group_signatures
from data.tables import Question

Stated = Literal["each", "first"]
"""Whose stated split counts in a new group: each question's own, or the first one's for the whole group."""


def split_of(founder_sha256: str, seed: int = 0) -> str:
    """Draw a group's split from its founder's prompt: 80% train, 10% val, 10% test."""
    digest = hashlib.blake2b(f"{seed}:{founder_sha256}".encode(), digest_size=8).digest()
    draw = int.from_bytes(digest, "big") % 100
    return "train" if draw < 80 else "val" if draw < 90 else "test"


def pack_signature(signature: NDArray[np.uint32]) -> bytes:
    return signature.astype("<u4").tobytes()


def group_questions(engine: Engine, stated: Stated = "each") -> int:
    """Give every question that has no group yet its group and split; how many there were.

    A question without a group is not read by anything, so an import that was killed before this step is mended by
    the next call.
    """
    ungrouped = Question.group_id.is_(None)
    with engine.connect() as connection:
        if not connection.execute(select(exists().where(ungrouped))).scalar():
            return 0
    with writing(engine, lock="questions") as connection:
        rows = _read(connection)
        changes = _assign(rows, stated)
        statement = (
            update(Question.__table__)  # type: ignore[arg-type]
            .where(Question.id == bindparam("question"))
            .values(group_id=bindparam("its_group"), split=bindparam("its_split"))
        )
        if changes:
            connection.execute(statement, changes)
        return len(changes)


@dataclass(frozen=True)
class _Row:
    id: int
    group: int | None
    split: str | None
    prompt_sha256: str
    signature: bytes


def _read(connection: Connection) -> list[_Row]:
    statement = select(
        Question.id, Question.group_id, Question.split, Question.prompt_sha256, Question.minhash
    ).order_by(Question.id)
    return [
        _Row(row.id, row.group_id, row.split, row.prompt_sha256, row.minhash or b"")
        for row in connection.execute(statement)
    ]


def _assign(rows: list[_Row], stated: Stated) -> list[dict[str, object]]:
    signatures = np.frombuffer(b"".join(row.signature for row in rows), dtype="<u4").reshape(-1, SIGNATURE_LENGTH)
    members: dict[int, list[_Row]] = {}
    for row, number in zip(rows, group_signatures(signatures).tolist(), strict=True):
        members.setdefault(number, []).append(row)
    changes: list[dict[str, object]] = []
    for group in members.values():
        stored = next((row for row in group if row.group is not None), None)
        new = [row for row in group if row.group is None]
        if stored is not None:
            its_group, its_split, keeps = stored.group, stored.split, False
        else:
            founder = min(group, key=lambda row: row.prompt_sha256)
            first_stated = next((row.split for row in group if row.split is not None), None)
            its_group = founder.id
            its_split = first_stated or split_of(founder.prompt_sha256)
            keeps = stated == "each"
        # logs may state several splits within a group: an equal prompt must not cross them
        split_of_prompt = {
            row.prompt_sha256: row.split
            for row in reversed(group)
            if row.split is not None and (row.group is not None or keeps)
        }
        for row in new:
            own = row.split if keeps else None
            split = own or split_of_prompt.get(row.prompt_sha256, its_split)
            changes.append({"question": row.id, "its_group": its_group, "its_split": split})
    return changes
