"""Forecasts of a benchmark's accuracy: the planted one is found, few labels narrow it, a bad prior is given up."""

import numpy as np
import pytest

from training.fold_in import ModelPosterior
from training.forecast import Shift, forecast_accuracy, forecast_or_count, unit_variances
from training.irt import fit_items, forecast_irt
from training.known_benchmark import OUTLIER, ability_elsewhere, facts_of, fit_benchmark
from training.posterior import Posterior

DIM = 2
N = 600


def items(seed: int = 0) -> Posterior:
    """Items whose embeddings are known."""
    return Posterior(np.random.default_rng(seed).normal(size=(N, DIM)), np.zeros((N, DIM, DIM)))


def answers(questions: Posterior, theta: np.ndarray, seed: int) -> np.ndarray:
    p = 1 / (1 + np.exp(-(questions.mean @ theta[:-1] + theta[-1])))
    label: np.ndarray = (np.random.default_rng(seed).random(N) < p).astype(np.float32)
    return label


def first(label: np.ndarray, n: int) -> np.ndarray:
    return np.where(np.arange(N) < n, label, np.nan).astype(np.float32)


PRIOR = ModelPosterior(np.zeros(DIM + 1), np.eye(DIM + 1))


def test_the_intervals_hold_the_truth_as_often_as_they_say_and_narrow_with_labels() -> None:
    rng, covered, widths, errors = np.random.default_rng(1), [], [], []
    for trial in range(60):
        questions = items(trial)
        label = answers(questions, rng.normal(size=DIM + 1), trial)
        found = [forecast_accuracy(PRIOR, questions, first(label, n), Shift(0.01)) for n in (0, 20, 100)]
        covered.append([one.low <= label.mean() <= one.high for one in found])
        widths.append([one.high - one.low for one in found])
        errors.append(abs(found[2].accuracy - label.mean()))
    assert (np.mean(covered, axis=0) > 0.8).all()
    assert not np.mean(covered) > 0.97
    assert np.all(np.diff(np.mean(widths, axis=0)) < 0)
    assert np.mean(errors) < 0.04


def test_items_own_difficulty_is_counted() -> None:
    """Of the easier half alone items are labelled: the sample mean is far too high, the forecast is not."""
    questions = items()
    theta = np.array([2.0, 0.0, 0.0])
    label = answers(questions, theta, 3)
    easy = np.argsort(-questions.mean[:, 0])[: N // 2 : 3]
    seen = np.full(N, np.nan, dtype=np.float32)
    seen[easy] = label[easy]
    found = forecast_accuracy(ModelPosterior(theta, 0.05 * np.eye(DIM + 1)), questions, seen, Shift(0.3))
    assert found.sample_mean is not None
    assert found.sample_mean - label.mean() > 0.25
    assert found.accuracy == pytest.approx(label.mean(), abs=0.06)


def test_a_bad_prior_is_given_up() -> None:
    """The model is believed good and is bad on this benchmark: fifty labels say so against a sure prior."""
    questions = items()
    believed = ModelPosterior(np.array([0.5, 0.0, 2.0]), 1e-4 * np.eye(DIM + 1))
    label = answers(questions, np.array([0.5, 0.0, -2.0]), 4)
    none, fifty = (forecast_accuracy(believed, questions, first(label, n), Shift(0.4)) for n in (0, 50))
    assert none.accuracy > 0.8
    assert fifty.accuracy == pytest.approx(label.mean(), abs=0.07)
    assert fifty.low < label.mean() < fifty.high


def test_few_labels_of_an_easy_benchmark_draw_no_forecast_toward_one_half() -> None:
    """The forecast is the posterior's mean, which one dimension lets us integrate, not that of its approximation."""
    alike = Posterior(np.zeros((N, 1)), np.zeros((N, 1, 1)))
    label = np.where(np.arange(N) < 40, np.arange(N) >= 3, np.nan).astype(np.float32)  # 37 of 40
    prior = ModelPosterior(np.zeros(2), np.diag([1e-6, 9.0]))
    bias = np.linspace(-15, 15, 20001)
    p = 1 / (1 + np.exp(-bias))
    log = 37 * np.log(p) + 3 * np.log1p(-p) - bias**2 / 2 / (9 + 0.01**2)
    posterior = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    exact = (37 + (N - 40) * (posterior @ p)) / N
    found = [forecast_accuracy(prior, alike, label, Shift(0.01), seed).accuracy for seed in range(30)]
    assert np.mean(found) == pytest.approx(exact, abs=0.002)
    assert np.std(found) < 0.006


def test_a_forecast_from_almost_nothing_gives_way_to_the_counted_mean_and_a_telling_one_does_not() -> None:
    questions = items()
    theta = np.array([1.0, 0.5, 1.5])
    label = first(answers(questions, theta, 8), 50)
    telling = ModelPosterior(theta, 0.02 * np.eye(DIM + 1))
    mean = label[:50].mean()
    vague = [forecast(PRIOR, questions, label, Shift(8.0)) for forecast in (forecast_accuracy, forecast_or_count)]
    assert vague[0].accuracy != pytest.approx(mean, abs=1e-6)
    assert vague[1].accuracy == pytest.approx(mean, abs=1e-6)
    assert vague[1].high - vague[1].low == pytest.approx(vague[0].high - vague[0].low)
    assert forecast_or_count(telling, questions, label, Shift(0.1)) == forecast_accuracy(
        telling, questions, label, Shift(0.1)
    )
    nothing = first(label, 0)
    assert forecast_or_count(PRIOR, questions, nothing, Shift(8.0)) == forecast_accuracy(
        PRIOR, questions, nothing, Shift(8.0)
    )


def test_labels_on_every_item_are_the_accuracy_itself() -> None:
    label = answers(items(), np.zeros(DIM + 1), 5)
    found = forecast_accuracy(PRIOR, items(), label, OUTLIER)
    assert found.accuracy == found.low == found.high == pytest.approx(label.mean())
    assert found.n_labelled == found.n_items == N
    with pytest.raises(ValueError, match="without items"):
        forecast_accuracy(PRIOR, Posterior(np.zeros((0, DIM)), np.zeros((0, DIM, DIM))), label[:0], OUTLIER)


@pytest.mark.parametrize(("is_right", "bound"), [(0.0, 0.05), (1.0, 0.95)])
def test_a_model_that_is_nothing_like_what_was_expected_is_soon_believed(is_right: float, bound: float) -> None:
    expected = ModelPosterior(np.array([0.5, 0.5, 3.0 if not is_right else -3.0]), 0.02 * np.eye(DIM + 1))
    label = np.full(N, is_right, dtype=np.float32)
    found = forecast_accuracy(expected, items(), first(label, 20), OUTLIER)
    assert abs(found.accuracy - bound) < 0.05
    assert found.low <= is_right + 0.02
    assert found.high >= is_right - 0.02
    unlabelled = forecast_accuracy(expected, items(), first(label, 0), OUTLIER)
    assert unlabelled.high - unlabelled.low < 0.15  # few are such


def test_a_fact_that_is_the_same_of_all_models_tells_nothing() -> None:
    fitted = fit_benchmark(np.tile(grid(1), (1, 6)))
    assert fitted is not None
    ability = np.full((6, 1), 0.1 + 0.2)
    ability[3:] = 0.3  # the same but for rounding
    found = fitted.prior_given(ability, np.array([5.0]))
    assert np.array_equal(found.covariance, fitted.prior().covariance)


def test_the_same_seed_gives_the_same_forecast() -> None:
    label = first(answers(items(), np.zeros(DIM + 1), 6), 30)
    assert forecast_accuracy(PRIOR, items(), label, OUTLIER, 7) == forecast_accuracy(PRIOR, items(), label, OUTLIER, 7)


def test_the_shifts_mixture_has_a_students_tails() -> None:
    variances = unit_variances(4.0)
    assert np.all(variances > 0)
    assert variances.max() > 3
    assert np.sqrt(np.median(variances)) == pytest.approx(1.0, abs=0.15)


def grid(n_models: int, seed: int = 0) -> np.ndarray:
    """Outcomes of models that differ in one ability on items that differ in difficulty, (N, n_models)."""
    rng = np.random.default_rng(seed)
    logit = 2.5 * rng.normal(size=(N, 1)) + rng.normal(size=n_models)
    return (rng.random((N, n_models)) < 1 / (1 + np.exp(-logit))).astype(np.float32)


def test_other_models_answers_beat_the_sample_mean_of_fifty_items() -> None:
    ours, irts, means = [], [], []
    for seed in range(3):
        label = grid(25, seed)
        fitted, irt = fit_benchmark(label[:, 5:]), fit_items(label[:, 5:])
        assert fitted is not None
        for draw in range(40):
            model = draw % 5
            chosen = np.random.default_rng([seed, draw]).choice(N, 50, replace=False)
            seen = np.full(N, np.nan, dtype=np.float32)
            seen[chosen] = label[chosen, model]
            truth = label[:, model].mean()
            ours.append(abs(forecast_accuracy(fitted.prior(), fitted.items, seen, OUTLIER).accuracy - truth))
            irts.append(abs(forecast_irt(irt, seen).mean - truth))
            means.append(abs(seen[chosen].mean() - truth))
    assert np.mean(ours) < 0.85 * np.mean(means)
    assert np.mean(irts) < 0.85 * np.mean(means)


def test_an_irt_that_saw_easy_items_answered_knows_the_rest_is_harder() -> None:
    label = grid(30)
    irt = fit_items(label[:, 1:])
    easy = np.argsort(-label[:, 1:].mean(axis=1))[:60]
    seen = np.full(N, np.nan, dtype=np.float32)
    seen[easy] = label[easy, 0]
    found = forecast_irt(irt, seen)
    assert seen[easy].mean() > label[:, 0].mean() + 0.15
    assert found.mean == pytest.approx(label[:, 0].mean(), abs=0.1)
    assert found.low < found.mean < found.high


def test_a_benchmark_that_few_models_ran_is_not_known() -> None:
    label = grid(6)
    assert fit_benchmark(label[:, :3]) is None
    label[: N // 2 + 1, 3:] = np.nan
    assert fit_benchmark(label) is None


def test_unobserved_is_not_wrong_in_a_benchmarks_fit() -> None:
    label = grid(12)
    rng = np.random.default_rng(1)
    holes = np.where(rng.random(label.shape) < 0.3, np.nan, label).astype(np.float32)
    whole, part = fit_benchmark(label), fit_benchmark(holes)
    assert whole is not None
    assert part is not None
    accuracy = [one.prior().p_correct(one.items).mean() for one in (whole, part)]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.02)


def test_ability_elsewhere_counts_no_easy_benchmark_as_merit() -> None:
    """The first model ran the easy benchmark alone; among those that ran it it is the middle one."""
    label = np.full((200, 3), np.nan, dtype=np.float32)
    benchmarks = np.repeat(["easy", "hard"], 100)
    for model, share in enumerate((90, 80, 95)):
        label[:100, model] = np.arange(100) < share
    for model, share in ((1, 10), (2, 30)):
        label[100:, model] = np.arange(100) < share
    ability = ability_elsewhere(label, benchmarks)
    assert ability[1] < ability[0] < ability[2]
    assert np.isnan(ability_elsewhere(np.full((5, 1), np.nan, dtype=np.float32), benchmarks[:5])[0])


def test_ability_elsewhere_moves_and_narrows_what_is_expected_of_a_model() -> None:
    label = grid(25)
    fitted = fit_benchmark(label)
    assert fitted is not None
    ability = np.log(label.mean(axis=0) / (1 - label.mean(axis=0)))
    facts = facts_of(["unstated"] * 25, ability)
    low, high = (fitted.prior_given(facts, np.array([0, np.nan, own])) for own in (ability.min(), ability.max()))
    expected = [one.p_correct(fitted.items).mean() for one in (low, high)]
    assert expected == pytest.approx([label.mean(axis=0).min(), label.mean(axis=0).max()], abs=0.05)
    assert low.covariance[-1, -1] < 0.3 * fitted.prior().covariance[-1, -1]
    unknown = fitted.prior_given(facts, np.array([0, np.nan, np.nan]))
    assert np.array_equal(unknown.mean, fitted.prior().mean)


def test_a_size_in_the_name_tells_of_a_model_that_answered_nothing() -> None:
    """The larger the abler here; of a name without a size the pool's spread is expected still."""
    label = grid(24, seed=1)
    order = np.argsort(label.mean(axis=0))
    names = [""] * 24
    for rank, column in enumerate(order):
        names[column] = f"open-{2 ** (rank / 2):.2f}b" if rank % 4 else "closed"
    fitted = fit_benchmark(label)
    assert fitted is not None
    facts = facts_of([*names, "open-1.5b", "open-2000b", "secret"], np.full(27, np.nan))
    small, large, unstated = (fitted.prior_given(facts[:24], own) for own in facts[24:])
    expected = [one.p_correct(fitted.items).mean() for one in (small, unstated, large)]
    assert expected[0] + 0.15 < expected[1] < expected[2] - 0.15
    assert small.covariance[-1, -1] < 0.6 * unstated.covariance[-1, -1]


def test_what_tells_nothing_of_the_pool_widens_little_and_moves_little() -> None:
    label = grid(25)
    fitted = fit_benchmark(label)
    assert fitted is not None
    noises = np.random.default_rng(0).normal(size=(30, 25, 1))
    prior, told = fitted.prior(), [fitted.prior_given(noise, np.array([1.0])) for noise in noises]
    assert np.mean([one.mean - prior.mean for one in told], axis=0) == pytest.approx(0, abs=0.15)
    assert 0.9 < np.mean([one.covariance[-1, -1] for one in told]) / prior.covariance[-1, -1] < 1.2
