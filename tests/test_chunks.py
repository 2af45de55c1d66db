"""Chunks give the same to the bit on any number of threads, and BLAS keeps to one thread meanwhile."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tests.planted import planted_log
from tests.test_fit import vectors_of
from training.alternation import FitSettings, Log, fit_path
from training.chunks import CHUNK, chunk_threads, each_chunk, sum_chunks
from training.dataset import Correctness


def test_chunks_cover_all_rows_in_order() -> None:
    with threadpool_limits(3), chunk_threads():
        parts = each_chunk(2 * CHUNK + 5, lambda rows: np.arange(rows.start, rows.stop))
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(2 * CHUNK + 5))


def test_nothing_is_one_empty_chunk() -> None:
    assert each_chunk(0, lambda rows: rows) == [slice(0, 0)]


def test_chunks_are_shared_out_while_blas_keeps_to_one_thread() -> None:
    both = threading.Barrier(2, timeout=30)

    def meet(_rows: slice) -> int:
        both.wait()  # only if two chunks are worked on at once
        return max(int(one["num_threads"]) for one in threadpool_info() if one["user_api"] == "blas")

    with threadpool_limits(2), chunk_threads():
        assert each_chunk(2, meet, chunk=1) == [1, 1]


def test_what_was_allowed_one_thread_stays_on_it() -> None:
    with threadpool_limits(1), chunk_threads():
        assert set(each_chunk(3, lambda _: threading.get_ident(), chunk=1)) == {threading.get_ident()}


def test_sums_do_not_depend_on_the_threads() -> None:
    terms = np.random.default_rng(0).normal(size=(50, 7)) * 10.0 ** np.arange(-8, 42)[:, None]
    (alone,) = sum_chunks(50, lambda rows: (terms[rows].sum(axis=0),), chunk=1)
    with threadpool_limits(3), chunk_threads():
        (shared,) = sum_chunks(50, lambda rows: (terms[rows].sum(axis=0),), chunk=1)
    np.testing.assert_array_equal(alone, shared)


def test_an_error_in_a_chunk_is_raised() -> None:
    def fail(rows: slice) -> None:
        if rows.start:
            raise ValueError(f"row {rows.start}")

    with threadpool_limits(2), chunk_threads(), pytest.raises(ValueError, match="row 1"):
        each_chunk(2, fail, chunk=1)


def test_a_fit_is_the_same_to_the_bit_on_any_number_of_threads() -> None:
    truth = planted_log(2 * CHUNK + 100, 6)
    data = Correctness.from_log(truth.log)
    log = Log.of(data, vectors_of(truth)[data.keys], np.arange(data.n_questions))
    settings = FitSettings(n_landmarks=100, n_rounds=3)
    fitted = []
    for n_threads in (1, 3):
        with threadpool_limits(n_threads), chunk_threads():
            (step,) = fit_path(log, [1.0], 0, settings)
        fitted.append(step.scorer.tensors())
    for name, array in fitted[0].items():
        np.testing.assert_array_equal(array, fitted[1][name], err_msg=name)
