"""Expected lengths of answers on logs whose truth is planted."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from router.costs import Costs, Pace
from router.encoder.lsa import LsaEncoder
from router.surface import describe
from tests.planted import TOPICS, planted_log
from training.costs import AnswerLengths, FittedLengths, fit_lengths, fold_in_lengths
from training.dataset import Correctness

Floats = NDArray[np.float64]
SPREAD = 0.6  # of log tokens about their mean


def lengths_log(by_topic: Floats, seed: int = 0) -> tuple[Correctness, Floats]:
    """A log whose answers' log-lengths are by_topic[m, topic] and noise; and the expected tokens, (N, M)."""
    data = Correctness.from_log(planted_log(600, len(by_topic), seed=seed).log)
    topic = np.array([TOPICS.index(str(benchmark)) for benchmark in data.benchmarks])
    mean = by_topic[:, topic].T  # (N, M)
    noise = np.random.default_rng(seed).normal(0, SPREAD, mean.shape)
    tokens = np.exp(mean + noise).astype(np.float32)
    return replace(data, output_tokens=tokens), np.exp(mean + SPREAD**2 / 2)


def encoded(data: Correctness) -> NDArray[np.float32]:
    return LsaEncoder.fit([data.prompts[row] for row in data.part("train")]).encode(data.prompts)


RESPONSES = np.array([[4.0, 5.0, 6.0, 7.0], [3.0, 3.5, 4.0, 4.5], [5.0, 5.0, 5.0, 5.0], [6.0, 5.0, 6.5, 4.0]])
DATA, TRUTH = lengths_log(RESPONSES)
VECTORS = encoded(DATA)
SURFACE = describe(DATA.prompts)
TEST = DATA.part("test")


@pytest.fixture(scope="module")
def fitted() -> FittedLengths:
    return fit_lengths(DATA, VECTORS)


def test_planted_lengths_are_recovered(fitted: FittedLengths) -> None:
    forecast = fitted.forecaster.tokens(VECTORS[TEST], SURFACE[TEST])
    assert np.median(np.abs(np.log(forecast / TRUTH[TEST]))) < 0.15
    assert forecast.sum() == pytest.approx(TRUTH[TEST].sum(), rel=0.08)


def test_a_prompt_alone_is_forecast_as_in_a_batch(fitted: FittedLengths) -> None:
    batch = fitted.forecaster.tokens(VECTORS[TEST], SURFACE[TEST])
    alone = np.vstack([fitted.forecaster.tokens(VECTORS[[row]], SURFACE[[row]]) for row in TEST])
    assert alone == pytest.approx(batch, rel=1e-4)


def test_test_answers_are_never_read(fitted: FittedLengths) -> None:
    tokens = DATA.output_tokens.copy()
    tokens[TEST] = 1e6
    again = fit_lengths(replace(DATA, output_tokens=tokens), VECTORS).forecaster
    assert np.array_equal(again.tokens(VECTORS, SURFACE), fitted.forecaster.tokens(VECTORS, SURFACE))


def test_costs_come_back_from_their_arrays_to_the_bit(fitted: FittedLengths) -> None:
    costs = Costs(fitted.forecaster, Pace(np.array([0.1, np.nan, 0.2, 0.3]), np.array([0.01, np.nan, 0.0, 0.02])))
    again = Costs.from_tensors(costs.tensors())
    assert np.array_equal(again.lengths.tokens(VECTORS, SURFACE), costs.lengths.tokens(VECTORS, SURFACE))
    assert np.array_equal(again.pace.first_token_s, costs.pace.first_token_s, equal_nan=True)


def test_lengths_that_no_prompt_tells_are_each_models_mean() -> None:
    data, truth = lengths_log(np.repeat([[4.0], [5.0], [6.0]], len(TOPICS), axis=1), seed=1)
    lengths = fit_lengths(data, encoded(data))
    forecast = lengths.forecaster.tokens(encoded(data), describe(data.prompts))
    assert forecast == pytest.approx(truth, rel=0.08)
    assert min(lengths.error_by_rank.values()) == pytest.approx(SPREAD**2, rel=0.15)


def test_a_model_without_a_counted_answer_stays_unknown() -> None:
    tokens = DATA.output_tokens.copy()
    tokens[:, 1] = np.nan
    data = replace(DATA, output_tokens=tokens, estimated_tokens=frozenset({DATA.model_names[2]}))
    forecaster = fit_lengths(data, VECTORS).forecaster
    forecast = forecaster.tokens(VECTORS[TEST], SURFACE[TEST])
    assert np.isnan(forecast[:, 1]).all()
    assert not np.isnan(np.delete(forecast, 1, axis=1)).any()
    assert forecaster.estimated.tolist() == [0, 0, 1, 0]


def test_without_any_counted_answer_all_is_unknown() -> None:
    nothing = replace(DATA, output_tokens=np.full_like(DATA.output_tokens, np.nan))
    assert np.isnan(fit_lengths(nothing, VECTORS).forecaster.tokens(VECTORS, SURFACE)).all()


def test_a_single_counted_answer_is_enough_for_a_mean() -> None:
    tokens = np.full_like(DATA.output_tokens, np.nan)
    tokens[DATA.part("train")[0], 0] = 80
    forecast = fit_lengths(replace(DATA, output_tokens=tokens), VECTORS).forecaster.tokens(VECTORS, SURFACE)
    assert forecast[:, 0] == pytest.approx(80, rel=0.01)
    assert np.isnan(forecast[:, 1:]).all()


def test_an_empty_answer_counts_as_one_token() -> None:
    tokens = DATA.output_tokens.copy()
    tokens[:, 1] = 0
    forecast = fit_lengths(replace(DATA, output_tokens=tokens), VECTORS).forecaster.tokens(VECTORS, SURFACE)
    assert np.isfinite(forecast).all()
    assert forecast[:, 1].max() < 2


def answers_like_the_first_but_shorter(rows: NDArray[np.int64]) -> AnswerLengths:
    tokens = DATA.output_tokens[rows, 0].astype(np.float64) / np.e
    return AnswerLengths(VECTORS[rows], [DATA.prompts[row] for row in rows], tokens, estimated=True)


def test_a_model_is_folded_in_from_few_answers(fitted: FittedLengths) -> None:
    answers = answers_like_the_first_but_shorter(DATA.part("train")[:40])
    topic = np.array([TOPICS.index(str(benchmark)) for benchmark in DATA.benchmarks])
    truth = np.exp(RESPONSES[0][topic] - 1 + SPREAD**2 / 2)
    costs = Costs(fitted.forecaster, Pace.unknown(4))
    grown = fold_in_lengths(costs, 4, answers, range(4))
    forecast = grown.lengths.tokens(VECTORS[TEST], SURFACE[TEST])
    assert np.array_equal(forecast[:, :4], costs.lengths.tokens(VECTORS[TEST], SURFACE[TEST]))
    error = np.abs(np.log(forecast[:, 4] / truth[TEST]))
    assert np.median(error) < np.median(np.abs(np.log(answers.tokens.mean() / truth[TEST]))) / 2
    assert grown.lengths.estimated.tolist() == [0, 0, 0, 0, 1]
    assert np.isnan(grown.pace.latency_s(forecast)[:, 4]).all()


def test_more_answers_replace_what_fewer_told(fitted: FittedLengths) -> None:
    few, more = (answers_like_the_first_but_shorter(DATA.part("train")[:n]) for n in (10, 40))
    costs = Costs(fitted.forecaster, Pace.unknown(4))
    in_parts = fold_in_lengths(fold_in_lengths(costs, 4, few, range(4)), 4, more, range(5))
    at_once = fold_in_lengths(costs, 4, more, range(4))
    assert np.array_equal(in_parts.lengths.tokens(VECTORS, SURFACE), at_once.lengths.tokens(VECTORS, SURFACE))


def test_a_model_folded_in_where_no_length_is_known_has_its_mean() -> None:
    answers = answers_like_the_first_but_shorter(DATA.part("train")[:40])
    grown = fold_in_lengths(Costs.from_means([None, None]), 2, answers, range(2))
    forecast = grown.lengths.tokens(VECTORS, SURFACE)
    assert np.isnan(forecast[:, :2]).all()
    assert forecast[:, 2] == pytest.approx(answers.tokens.mean(), rel=1e-5)


def test_means_alone_are_given_as_they_are() -> None:
    costs = Costs.from_means([100.0, None])
    tokens = costs.lengths.tokens(VECTORS[:3], SURFACE[:3])
    assert tokens[:, 0].tolist() == [100.0] * 3
    assert np.isnan(tokens[:, 1]).all()
    assert np.isnan(costs.pace.latency_s(tokens)).all()
