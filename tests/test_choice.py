"""Choosing by what a prompt's own answer should take, without a gateway around it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.abstention import Abstention
from router.artifact import Artifact, content_id, read_artifact, write_artifact
from router.choice import Forecast, choose, explain, forecast
from router.costs import Costs, Pace
from router.errors import NoEligibleModelError, NoModelReliableError
from router.observed import Observed
from router.policy import UNCOUNTED, Policy
from router.pool import Pool, PoolEntry, Upstream, join_pool
from router.replay import replay
from router.request import PromptRequest, read_request
from router.settings import PoolSection
from tests.serving import A_POEM, A_SUM, entry, planted_artifact

URL = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return planted_artifact(tmp_path_factory.mktemp("artifacts"), {"a": (0.9, 0.9), "b": (0.8, 0.8)})


def request(text: str = A_SUM, **overrides: object) -> PromptRequest:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "embedrouter": overrides}
    return read_request(json.dumps(body).encode(), {}, Policy("cheapest", min_p_correct=0.5))


def pool_of(*entries: PoolEntry) -> Pool:
    return Pool(entries, {each.name: each for each in entries}, entries)


def priced(name: str, column: int, **more: object) -> PoolEntry:
    upstream = Upstream(URL, name)
    whole = PoolEntry(name, upstream=upstream, usd_per_1m_input=0.0, usd_per_1m_output=1.0, column=column)
    return replace(whole, **more)  # type: ignore[arg-type]


def chosen(pool: Pool, seen: Forecast, wanted: PromptRequest) -> list[str]:
    decision = choose(wanted, "r", pool, pool.routable, {}, seen)
    return [option.entry.name for option in decision.options]


def test_the_cheapest_is_who_answers_this_prompt_shortly() -> None:
    pool = pool_of(priced("a", 0, expected_output_tokens=10.0), priced("b", 1, expected_output_tokens=20.0))
    assert chosen(pool, Forecast([0.9, 0.9]), request()) == ["a", "b"]
    assert chosen(pool, Forecast([0.9, 0.9], output_tokens=(300.0, 200.0)), request()) == ["b", "a"]


def test_beyond_the_limit_on_novelty_only_what_is_usual_counts() -> None:
    pool = pool_of(priced("a", 0), priced("b", 1))
    seen = Forecast([0.9, 0.2], low=(0.8, 0.1), high=(1.0, 0.3), novelty=0.7, usual=(0.5, 0.6), max_novelty=0.6)
    wanted = request(policy="quality")
    decision = choose(wanted, "r", pool, pool.routable, {}, seen)
    assert [(o.entry.name, o.p_correct, o.interval) for o in decision.options] == [("b", 0.6, None), ("a", 0.5, None)]
    assert decision.note is not None
    assert decision.note.startswith(
        "outside what the logs cover, novelty 0.700 being above 0.600: by each model's usual"
    )
    assert chosen(pool, seen._replace(novelty=0.6), wanted) == ["a", "b"]
    assert chosen(pool, seen._replace(max_novelty=None), wanted) == ["a", "b"]  # as earlier artifacts say


@pytest.mark.parametrize(("limit", "first"), [(0.65, "b"), (0.75, "a"), (1.0, "a")])
def test_the_configuration_may_set_the_limit_on_novelty(limit: float, first: str) -> None:
    pool = pool_of(priced("a", 0), priced("b", 1))
    seen = Forecast([0.9, 0.2], novelty=0.7, usual=(0.5, 0.6), max_novelty=0.6)
    wanted = request(policy="quality")
    policy = replace(wanted.policy, max_novelty=limit)
    wanted = wanted._replace(overrides=wanted.overrides._replace(policy=policy))
    assert chosen(pool, seen, wanted)[0] == first


def test_a_prompt_without_text_is_forecast_by_what_is_usual(artifact: Artifact) -> None:
    seen = forecast(artifact, " \n")
    assert seen.p_correct == pytest.approx([0.9, 0.8], abs=1e-6)
    assert seen.doubt == "no user text to encode"


def test_an_unknown_length_is_left_out_by_its_own_reason() -> None:
    pool = pool_of(priced("a", 0, expected_output_tokens=None), priced("b", 1, usd_per_1m_input=None), priced("c", 2))
    seen = Forecast([0.9] * 3, output_tokens=(None, 5.0, 5.0))
    decision = choose(request(), "r", pool, pool.routable, {}, seen)
    assert [option.entry.name for option in decision.options] == ["c"]
    assert {o.entry.name: o.excluded for o in decision.others} == {"a": UNCOUNTED, "b": "its price is unknown"}
    assert decision.note == "1 without a price left out, 1 without answers of a known length left out"


def test_limits_are_held_by_this_prompts_own_answer() -> None:
    pool = pool_of(*(priced(name, m, first_token_s=1.0, s_per_token=0.01) for m, name in enumerate("ab")))
    seen = Forecast([0.9, 0.9], output_tokens=(100.0, 400.0))
    assert chosen(pool, seen, request(max_cost_usd=2e-4)) == ["a"]
    assert chosen(pool, seen, request(max_latency_s=3)) == ["a"]
    assert chosen(pool, seen, request(max_latency_s=6)) == ["a", "b"]
    with pytest.raises(NoEligibleModelError) as caught:
        chosen(pool, seen, request(max_latency_s=1.5))
    assert caught.value.reasons["b"] == "its answers take about 5.0 s, more than 1.5"


def test_an_explanation_says_what_lengths_stand_on(artifact: Artifact, tmp_path: Path) -> None:
    manifest = artifact.manifest.model_copy(update={"output_tokens_estimated": (True, False)})
    costs = replace(artifact.costs, pace=Pace(np.array([1.0, np.nan]), np.array([0.5, np.nan])))
    paced = write_artifact(tmp_path, manifest, artifact.scorer, artifact.encoder, costs)
    pool = join_pool([PoolSection.model_validate(entry(name, URL)) for name in "ab"], [], paced, {})
    shown = {each["model"]: each for each in explain(request(), "r", paced, pool)["candidates"]}  # type: ignore[attr-defined]
    fields = ("expected_output_tokens", "output_tokens_basis", "expected_latency_s")
    assert [shown["a"][name] for name in fields] == [100.0, "estimated", 51.0]
    assert [shown["b"][name] for name in fields] == [100.0, "counted", None]


def test_a_text_that_says_nothing_has_each_models_usual_answer(artifact: Artifact) -> None:
    assert forecast(artifact, A_POEM).output_tokens == (100.0, 100.0)
    assert forecast(artifact, "").output_tokens == ()


def test_costs_come_back_with_their_artifact(artifact: Artifact, tmp_path: Path) -> None:
    costs = Costs(artifact.costs.lengths, Pace(np.array([0.25, np.nan]), np.array([0.01, np.nan])))
    written = write_artifact(tmp_path, artifact.manifest, artifact.scorer, artifact.encoder, costs)
    assert np.array_equal(read_artifact(written.folder).costs.pace.first_token_s, [0.25, np.nan], equal_nan=True)
    with pytest.raises(ValueError, match="costs of 3 models for the 2"):
        write_artifact(tmp_path, artifact.manifest, artifact.scorer, artifact.encoder, costs.with_unknown_model())


def test_an_artifact_without_costs_has_its_manifests_means(artifact: Artifact, tmp_path: Path) -> None:
    manifest = artifact.manifest.model_copy(update={"expected_output_tokens": (70.0, None)})
    written = write_artifact(tmp_path, manifest, artifact.scorer, artifact.encoder)
    (written.folder / "costs.safetensors").unlink()
    old = read_artifact(written.folder.rename(tmp_path / content_id(written.folder)))
    assert forecast(old, A_SUM).output_tokens == (70.0, None)


# of the surest half 1 in 20 is wrong, of all 1 in 5
CALIBRATED = Abstention(*np.array([[0.8, 0.5], [0.5, 1.0], [0.04, 0.18], [0.05, 0.2]]))


def limited(configured: Policy | None = None, **overrides: object) -> PromptRequest:
    body = {"model": "auto", "messages": [{"role": "user", "content": A_SUM}], "embedrouter": overrides}
    return read_request(json.dumps(body).encode(), {}, configured or Policy(default_model="b"))


def test_who_is_not_sure_enough_for_the_limit_is_left_out() -> None:
    pool = pool_of(*(priced(name, m) for m, name in enumerate("abc")))
    decision = choose(
        limited(max_error=0.05), "r", pool, pool.routable, {}, Forecast([0.79, 0.9, 0.8], abstention=CALIBRATED)
    )
    assert [option.entry.name for option in decision.options] == ["b", "c"]
    assert {o.entry.name: o.excluded for o in decision.others} == {"a": "P(correct) 0.7900 is below 0.8000"}
    assert decision.policy is not None
    assert decision.policy.settings() == {"max_error": 0.05}
    lax = choose(
        limited(max_error=0.3), "r", pool, pool.routable, {}, Forecast([0.79, 0.9, 0.5], abstention=CALIBRATED)
    )
    assert [option.entry.name for option in lax.options] == ["b", "a", "c"]
    unlimited = choose(limited(max_error=1), "r", pool, pool.routable, {}, Forecast([0.1, 0.2, 0.3]))
    assert [option.entry.name for option in unlimited.options] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("seen", "max_error", "why"),
    [
        (Forecast([0.7, 0.6], abstention=CALIBRATED), 0.1, "errors of at most 0.1 need P(correct) 0.8000"),
        (Forecast([0.99, 0.98], abstention=CALIBRATED), 0.01, "no P(correct) was shown to keep errors to 0.01"),
        (Forecast([0.99, 0.98]), 0.3, "the artifact in use was not calibrated for limits on errors"),
        (Forecast([0.99, 0.98], "no user text to encode", abstention=CALIBRATED), 0.3, "no user text to encode"),
    ],
)
def test_a_request_that_nobody_is_sure_of_is_refused_or_has_the_default(
    seen: Forecast, max_error: float, why: str
) -> None:
    pool = pool_of(priced("a", 0), priced("b", 1))
    with pytest.raises(NoModelReliableError, match=re.escape(f"no model is reliable enough: {why}")) as caught:
        choose(limited(max_error=max_error), "r", pool, pool.routable, {}, seen)
    assert (caught.value.status, caught.value.code) == (400, "no_model_reliable_enough")
    assert sorted(caught.value.reasons) == ["a", "b"]
    to_default = limited(Policy(default_model="b", max_error=max_error, abstain="default_model"))
    decision = choose(to_default, "r", pool, pool.routable, {}, seen)
    assert [option.entry.name for option in decision.options] == ["b"]
    assert [option.entry.name for option in decision.others] == ["a"]
    assert decision.note is not None
    assert decision.note.startswith(f"abstained, {why}")
    assert replay(decision.as_row()).same_order


def waiting(entry: PoolEntry) -> Observed:
    """What is known where one model is out of quota."""
    observed = Observed()
    observed.breakers.failed(entry.upstream, retry_after_s=30.0)
    return observed


def test_where_who_is_sure_is_out_of_quota_the_default_stands_in() -> None:
    pool = pool_of(priced("a", 0), priced("b", 1))
    wanted = limited(Policy(default_model="b", max_error=0.1, abstain="default_model"))
    seen = Forecast([0.9, 0.6], abstention=CALIBRATED)
    decision = choose(wanted, "r", pool, pool.routable, {}, seen, waiting(pool.entries[0]))
    assert [option.entry.name for option in decision.options] == ["b"]
    assert decision.note is not None
    assert decision.note.startswith("abstained")
    assert [o.excluded for o in decision.others] == ["out of quota for another 30 s, its upstream says"]
    refusing = choose(limited(max_error=0.1), "r", pool, pool.routable, {}, seen, waiting(pool.entries[0]))
    assert [option.entry.name for option in refusing.options] == ["a"]  # who asks it says how long to wait


def test_a_default_that_is_out_of_quota_is_not_said_to_be_asked() -> None:
    pool = pool_of(priced("a", 0), priced("b", 1))
    seen = Forecast([0.9, 0.6], "no user text to encode")
    decision = choose(limited(), "r", pool, pool.routable, {}, seen, waiting(pool.entries[1]))
    assert [option.entry.name for option in decision.options] == ["a"]
    assert decision.note == "no user text to encode: the default model b cannot take it"


def test_a_default_that_cannot_take_it_cannot_stand_in() -> None:
    pool = pool_of(priced("a", 0))
    with pytest.raises(NoModelReliableError):
        choose(
            limited(Policy(default_model="b", max_error=0.1, abstain="default_model")),
            "r",
            pool,
            pool.routable,
            {},
            Forecast([0.1], abstention=CALIBRATED),
        )


def test_other_policies_know_no_limit_on_errors() -> None:
    pool = pool_of(priced("a", 0), priced("b", 1))
    wanted = limited(Policy(max_error=0.05), policy="cheapest")
    decision = choose(wanted, "r", pool, pool.routable, {}, Forecast([0.1, 0.2], abstention=CALIBRATED))
    assert len(decision.options) == 2


def test_what_was_calibrated_comes_back_with_its_artifact(artifact: Artifact, tmp_path: Path) -> None:
    assert forecast(artifact, A_SUM).abstention is None
    written = write_artifact(
        tmp_path, artifact.manifest, artifact.scorer, artifact.encoder, artifact.costs, abstention=CALIBRATED
    )
    found = forecast(read_artifact(written.folder), A_SUM).abstention
    assert found is not None
    assert [found.threshold(limit) for limit in (0.04, 0.05, 0.2)] == [None, 0.8, 0.5]
