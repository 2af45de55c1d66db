"""Question vectors for training: encoded once, and kept in SQL where the encoder does not depend on the logs."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import Engine

from data import queries, store
from router.encoder.base import Encoder, Vectors
from training.dataset import Correctness

if TYPE_CHECKING:
    from router.encoder.joined import Part  # loaded only where it is used

CHUNK = 256  # questions encoded between two saves: what an interrupted run loses at most


def question_vectors(
    engine: Engine, encoder: Encoder, data: Correctness, on_progress: Callable[[str], None] = lambda _: None
) -> Vectors:
    """Encode the data's questions, of shape (n_questions, dim), reading and filling the cache in SQL."""
    parts: tuple[Part, ...] = getattr(encoder, "parts", ())
    if parts:  # joined anew from its parts' vectors, of which some are kept
        vectors_of_parts = [question_vectors(engine, part.encoder, data, on_progress) for part in parts]
        return np.hstack([part.direction(raw) for part, raw in zip(parts, vectors_of_parts, strict=True)])
    if encoder.depends_on_logs:
        return encoder.encode(data.prompts)
    cached = queries.question_vectors(engine, encoder.fingerprint)
    vectors = np.zeros((data.n_questions, encoder.dim), dtype=np.float32)
    missing = []
    for row, key in enumerate(data.keys.tolist()):
        if key in cached:
            vectors[row] = cached[key]
        else:
            missing.append(row)
    for start in range(0, len(missing), CHUNK):
        rows = missing[start : start + CHUNK]
        vectors[rows] = encoder.encode([data.prompts[row] for row in rows])
        store.save_question_vectors(engine, encoder.fingerprint, {int(data.keys[row]): vectors[row] for row in rows})
        on_progress(f"encoded {start + len(rows):,} of {len(missing):,} new questions")
    return vectors
