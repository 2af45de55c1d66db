"""Question vectors for training: encoded once, and kept in SQL where the encoder does not depend on the logs."""

from collections.abc import Callable

import numpy as np
from sqlalchemy import Engine

from data import queries, store
from router.encoder.base import Encoder, Vectors
from router.encoder.joined import JoinedEncoder
from training.dataset import Correctness

CHUNK = 256  # questions encoded between two saves: what an interrupted run loses at most


def question_vectors(
    engine: Engine, encoder: Encoder, data: Correctness, on_progress: Callable[[str], None] = lambda _: None
) -> Vectors:
    """Encode the data's questions, of shape (n_questions, dim), reading and filling the cache in SQL."""
    if isinstance(encoder, JoinedEncoder):  # joined anew from its parts' vectors, of which some are kept
        return encoder.join([question_vectors(engine, part.encoder, data, on_progress) for part in encoder.parts])
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
