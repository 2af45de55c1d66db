"""Many questions are learned from in part first, and then all of them."""

from dataclasses import replace

import numpy as np

from tests.planted import planted_log
from tests.test_fit import vectors_of
from training.alternation import FitSettings, Log, fit_path
from training.dataset import Correctness

SETTINGS = FitSettings(n_landmarks=200)


def test_models_that_a_part_has_taught_lead_as_near_to_the_truth() -> None:
    truth = planted_log(1200, 10)
    data = Correctness.from_log(truth.log)
    log = Log.of(data, vectors_of(truth)[data.keys], np.arange(data.n_questions))
    errors = []
    for n_coarse in (len(log.label), 500):
        (step,) = fit_path(log, [1.0], 0, replace(SETTINGS, n_coarse=n_coarse))
        errors.append(float(np.abs(step.scorer.p_correct(log.vectors, log.surface) - truth.p[data.keys]).mean()))
    whole, coarse = errors
    assert whole != coarse
    assert coarse < min(whole + 0.015, 0.08)
