"""Choosing by what a prompt's own answer should take, without a gateway around it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.artifact import Artifact, content_id, read_artifact, write_artifact
from router.choice import Forecast, choose, explain, forecast
from router.costs import Costs, Pace
from router.errors import NoEligibleModelError
from router.policy import UNCOUNTED, Policy
from router.pool import Pool, PoolEntry, Upstream, join_pool
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
