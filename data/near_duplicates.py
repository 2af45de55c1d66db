"""Which prompts are near-duplicates: word shingles, MinHash signatures, and groups of signatures that agree.

Near-duplicates must fall into one split, or the test set leaks into training. A template (a benchmark's preamble, an
application's system prompt) makes unlike questions look alike; it shows by the number of texts it draws together, and
of those only equal texts share a group. This works on texts and arrays and does not know SQL; `data.splits` keeps the
signatures there, so that a later log's questions join the groups of earlier ones.
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SIMILARITY = 0.8  # Jaccard similarity of two prompts' shingles from which on they are near-duplicates
TEMPLATE_SIZE = 8  # more distinct texts than this, all alike, are one template's questions
WORDS_PER_SHINGLE = 3
N_PERMUTATIONS = 128
ROWS_PER_BAND = 8  # 16 bands: a pair at 0.8 shares one with probability 0.95, at 0.9 with 0.9999, at 0.5 with 0.06
N_DIGEST = 4  # a signature ends in 128 bits of the text's own digest, in uint32
SIGNATURE_LENGTH = N_PERMUTATIONS + N_DIGEST


def group_near_duplicates(prompts: Sequence[str]) -> NDArray[np.int64]:
    """Number each prompt's group, of shape (n_prompts,): the position of the group's first prompt."""
    return group_signatures(sign(prompts))


def sign(prompts: Sequence[str]) -> NDArray[np.uint32]:
    """Sketch each prompt, of shape (n_prompts, SIGNATURE_LENGTH): MinHash of its shingles, digest of its words."""
    from datasketch import MinHash  # with scipy it takes a second to import, which serving need not wait for

    words = [unicodedata.normalize("NFKC", prompt).lower().split() for prompt in prompts]
    signatures = np.empty((len(prompts), SIGNATURE_LENGTH), dtype=np.uint32)
    for row, sketch in enumerate(MinHash.generator(map(_shingles, words), num_perm=N_PERMUTATIONS, seed=1)):
        signatures[row, :N_PERMUTATIONS] = sketch.hashvalues
        digest = hashlib.blake2b(" ".join(words[row]).encode(), digest_size=4 * N_DIGEST).digest()
        signatures[row, N_PERMUTATIONS:] = np.frombuffer(digest, dtype="<u4")
    return signatures


def group_signatures(signatures: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Join signatures that agree in SIMILARITY of their places, directly or through others.

    Candidates are those with an equal band (locality-sensitive hashing); each is then compared in full. Which rows
    share a group does not depend on their order; the group's number is the position of its first row.
    """
    if not len(signatures):
        return np.empty(0, dtype=np.int64)
    texts, inverse = np.unique(signatures, axis=0, return_inverse=True)
    sketches = np.ascontiguousarray(texts[:, :N_PERMUTATIONS])
    group = np.arange(len(texts))
    for bucket in _buckets(sketches):
        _join(bucket, sketches, group)
    size = np.bincount(group, minlength=len(group))
    group = np.where(size[group] > TEMPLATE_SIZE, np.arange(len(texts)), group)
    _, first, number = np.unique(group[inverse.ravel()], return_index=True, return_inverse=True)
    return first[number].astype(np.int64)


def _shingles(words: list[str]) -> list[bytes]:
    """Cut a text into overlapping runs of words; one of fewer words is a single shingle."""
    if len(words) <= WORDS_PER_SHINGLE:
        return [" ".join(words).encode()]
    runs = zip(*(words[start:] for start in range(WORDS_PER_SHINGLE)), strict=False)
    return [" ".join(run).encode() for run in {*runs}]


def _buckets(sketches: NDArray[np.uint32]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows that share a band."""
    for start in range(0, N_PERMUTATIONS, ROWS_PER_BAND):
        band = np.ascontiguousarray(sketches[:, start : start + ROWS_PER_BAND])
        keys = band.view(np.dtype((np.void, band.itemsize * ROWS_PER_BAND))).ravel()
        _, key = np.unique(keys, return_inverse=True)
        order = np.argsort(key, kind="stable")
        bounds = np.flatnonzero(np.diff(key[order])) + 1
        yield from (rows for rows in np.split(order, bounds) if len(rows) > 1)


def _join(bucket: NDArray[np.int64], sketches: NDArray[np.uint32], group: NDArray[np.int64]) -> None:
    """Join a bucket's similar rows in `group`; rows of one group already need no comparison."""
    while len(bucket) > 1 and (group[bucket] != group[bucket[0]]).any():
        row, bucket = bucket[0], bucket[1:]
        others = bucket[group[bucket] != group[row]]
        alike = others[(sketches[others] == sketches[row]).mean(axis=1) >= SIMILARITY]
        if len(alike):
            joined = np.unique(np.append(group[alike], group[row]))
            group[np.isin(group, joined)] = joined[0]
