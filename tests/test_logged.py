"""What an artifact keeps of logged questions comes back from disk as it was."""

from pathlib import Path

import numpy as np
import pytest

from router.artifact import read_artifact, write_artifact
from router.logged import LoggedQuestions
from tests.serving import planted_artifact

ROOTS = np.random.default_rng(0).normal(size=(5, 3, 3))
COVARIANCE = ROOTS @ ROOTS.transpose(0, 2, 1)
MEAN = np.arange(15.0).reshape(5, 3)
KEYS = np.array([40, 10, 30, 20, 50])


def test_covariances_are_unpacked_as_they_were_in_the_order_of_the_keys() -> None:
    logged = LoggedQuestions.of(KEYS, MEAN, COVARIANCE)
    order = np.argsort(KEYS)
    assert logged.keys.tolist() == [10, 20, 30, 40, 50]
    assert np.array_equal(logged.mean, MEAN[order].astype(np.float32))
    assert logged.covariance() == pytest.approx(COVARIANCE[order], rel=1e-6)
    assert logged.rows_of(np.array([50, 11, 10, 99])).tolist() == [4, -1, 0, -1]


def test_an_artifact_brings_them_back_to_the_bit_and_its_name_says_so(tmp_path: Path) -> None:
    without = planted_artifact(tmp_path, {"calculator": (0.9, 0.3)})
    assert without.logged_questions() is None
    logged = LoggedQuestions.of(KEYS, MEAN, COVARIANCE)
    written = write_artifact(
        tmp_path, without.manifest, without.scorer, without.encoder, without.costs, questions=logged
    )
    assert written.id != without.id
    found = read_artifact(written.folder).logged_questions()
    assert found is not None
    for name, array in logged.tensors().items():
        assert np.array_equal(found.tensors()[name], array)


def test_keys_that_repeat_or_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="ascend"):
        LoggedQuestions.of(np.array([1, 1, 2, 3, 4]), MEAN, COVARIANCE)
    with pytest.raises(ValueError, match=r"keys \(4,\)"):
        LoggedQuestions.from_tensors(LoggedQuestions.of(KEYS, MEAN, COVARIANCE).tensors() | {"keys": KEYS[:4]})
