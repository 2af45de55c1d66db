"""Items that are suggested for labelling, on a planted benchmark."""

import numpy as np

from training.forecast import forecast_accuracy
from training.known_benchmark import OUTLIER, fit_benchmark, suggest_items

N_ITEMS, N_MODELS, N_LABELLED = 400, 30, 50


def test_suggested_items_tell_more_of_a_new_model_than_random_ones() -> None:
    rng = np.random.default_rng(3)
    models = np.column_stack(
        [rng.normal(1, 0.3, N_MODELS), rng.normal(0, 0.6, N_MODELS), rng.normal(0.3, 0.8, N_MODELS)]
    )
    items = np.column_stack([rng.normal(0, 1.5, N_ITEMS), rng.normal(0, 1, N_ITEMS), np.ones(N_ITEMS)])
    label = (rng.random((N_ITEMS, N_MODELS)) < 1 / (1 + np.exp(-items @ models.T))).astype(np.float32)
    found = []  # error and width, with suggested and with random items
    for model in range(N_MODELS):
        fitted = fit_benchmark(np.delete(label, model, axis=1))
        assert fitted is not None
        suggested = suggest_items(fitted.prior(), fitted.items, N_LABELLED)
        assert len(set(suggested.tolist())) == N_LABELLED
        for rows in (suggested, rng.choice(N_ITEMS, N_LABELLED, replace=False)):
            seen = np.full(N_ITEMS, np.nan, dtype=np.float32)
            seen[rows] = label[rows, model]
            one = forecast_accuracy(fitted.prior(), fitted.items, seen, OUTLIER)
            found.append((abs(one.accuracy - label[:, model].mean()), one.high - one.low))
    error, width = np.array(found).reshape(N_MODELS, 2, 2).mean(axis=0).T
    assert error[0] < 0.95 * error[1]
    assert width[0] < 0.97 * width[1]
