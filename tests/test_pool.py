"""Joining configuration, SQL and artifact into the pool: who is in, under which names, and why one is out."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.queries import ModelRow
from router.artifact import Artifact
from router.errors import ConfigError
from router.pool import PoolEntry, join_pool
from router.settings import PoolSection
from tests.serving import entry, planted_artifact

URL = "http://127.0.0.1:1/v1"
BLANK = ModelRow("", None, None, None, (), None, None, None, (), False, 0)


def row(name: str, **more: object) -> ModelRow:
    return replace(BLANK, name=name, **more)  # type: ignore[arg-type]


def section(name: str, **more: object) -> PoolSection:
    return PoolSection.model_validate({"name": name, **more})


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder: Path = tmp_path_factory.mktemp("artifacts")
    return planted_artifact(folder, {"a": (0.9, 0.1), "b": (0.5, 0.5)})


def test_an_entry_with_upstream_and_logs_is_routable(artifact: Artifact) -> None:
    pool = join_pool([PoolSection.model_validate(entry("b", URL))], [row("b", n_outcomes=3)], artifact, {})
    (b,) = pool.routable
    assert (b.name, b.column, b.reason) == ("b", 1, None)


def test_each_reason_is_said(artifact: Artifact) -> None:
    sections = [section("new", upstream={"base_url": URL}), section("old", upstream={"base_url": URL})]
    rows = [
        row("a"),
        row("b", retired=True, upstream_url=URL),
        row("late", upstream_url=URL, n_outcomes=5),
        row("locked", upstream_url=URL, upstream_key_env="LOCKED_KEY"),
    ]
    assert join_pool(sections, rows, artifact, {}).reasons == {
        "new": f"no logs: not in artifact {artifact.id}",
        "old": f"no logs: not in artifact {artifact.id}",
        "a": "no upstream",
        "b": "retired",
        "late": f"its logs are newer than artifact {artifact.id}",
        "locked": "no upstream: its key's variable LOCKED_KEY is not set",
    }


def test_a_model_of_the_artifact_alone_is_listed(artifact: Artifact) -> None:
    assert join_pool([], [], artifact, {}).reasons == {"a": "no upstream", "b": "no upstream"}


@pytest.mark.parametrize(("name", "why"), [("auto", "no model can be called auto"), (" ", "a blank name")])
def test_what_an_older_database_called_auto_or_nothing_is_out_with_its_reason(
    tmp_path: Path, name: str, why: str
) -> None:
    older = planted_artifact(tmp_path, {name: (0.9, 0.1), "b": (0.5, 0.5)})
    rows = [row(name, upstream_url=URL, n_outcomes=9), row("b", upstream_url=URL, aliases=(name, "b-2025"))]
    pool = join_pool([], rows, older, {}, "http://simulated/v1")
    assert [entry.name for entry in pool.routable] == ["b"]
    assert (pool.routable[0].column, pool.routable[0].aliases) == (1, ("b-2025",))
    assert pool.by_name.keys() == {"b", "b-2025"}
    assert why in pool.reasons[name]


def test_a_stored_url_with_a_password_is_not_called_and_not_repeated(artifact: Artifact) -> None:
    pool = join_pool([], [row("a", upstream_url="https://me:hunter2@host/v1")], artifact, {})
    assert "no upstream: in its URL, it holds a user name or a password" in pool.reasons["a"]
    assert "hunter2" not in repr(pool)


def test_without_an_artifact_nothing_is_routable() -> None:
    pool = join_pool([PoolSection.model_validate(entry("a", URL))], [], None, {})
    assert pool.routable == ()
    assert pool.reasons == {"a": "no artifact"}


def test_a_configured_alias_is_the_name_that_logs_use(artifact: Artifact) -> None:
    configured = section("friendly", aliases=["a"], upstream={"base_url": URL})
    pool = join_pool([configured], [row("a", aliases=("a-2025",))], artifact, {})
    friendly = pool.by_name["friendly"]
    assert pool.by_name["a"] is friendly
    assert pool.by_name["a-2025"] is friendly
    assert (friendly.column, friendly.reason) == (0, None)
    assert [e.name for e in pool.entries] == ["friendly", "b"]


def test_the_configuration_wins_over_the_database_field_by_field(artifact: Artifact) -> None:
    configured = section("a", usd_per_1m_input=1.0, upstream={"base_url": URL, "model": "mine", "api_key": " k\n"})
    stored = row(
        "a",
        usd_per_1m_input=9.0,
        usd_per_1m_output=8.0,
        context_window=100,
        upstream_url="http://other/v1",
        upstream_model="theirs",
    )
    a = join_pool([configured], [stored], artifact, {}).by_name["a"]
    assert (a.usd_per_1m_input, a.usd_per_1m_output, a.context_window) == (1.0, 8.0, 100)
    assert a.upstream is not None
    assert (a.upstream.base_url, a.upstream.model, a.upstream.key) == (URL, "mine", "k")
    assert "k" not in repr(a.upstream).replace("http", "")


def test_an_upstream_of_the_database_takes_its_key_from_the_environment(artifact: Artifact) -> None:
    stored = row("a", upstream_url=f"{URL}/", upstream_key_env="A_KEY")
    upstream = join_pool([], [stored], artifact, {"A_KEY": "sk-1\n"}).by_name["a"].upstream
    assert upstream is not None
    assert (upstream.base_url, upstream.model, upstream.key) == (URL, "a", "sk-1")


def test_a_simulated_upstream_stands_in_only_where_there_is_none(artifact: Artifact) -> None:
    pool = join_pool([PoolSection.model_validate(entry("a", URL))], [], artifact, {}, "http://simulated/v1")
    assert [e.upstream.base_url for e in pool.routable if e.upstream] == [URL, "http://simulated/v1"]


@pytest.mark.parametrize(
    ("sections", "rows", "says"),
    [
        ([section("x", aliases=["m"]), section("y", aliases=["n"])], [row("m", aliases=("n",))], "is both 'x' and 'y'"),
        ([], [row("x"), row("y", aliases=("x",))], "'x'"),
    ],
)
def test_two_entries_cannot_answer_to_one_name(sections: list[PoolSection], rows: list[ModelRow], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        join_pool(sections, rows, None, {})


PRICED = PoolEntry("m", usd_per_1m_input=1.0, usd_per_1m_output=10.0, expected_output_tokens=200.0)


def test_the_expected_cost_is_of_this_request() -> None:
    assert PRICED.expected_cost_usd(1000, None) == pytest.approx((1000 * 1 + 200 * 10) / 1e6)
    assert PRICED.expected_cost_usd(1000, 50) == pytest.approx((1000 * 1 + 50 * 10) / 1e6)
    assert PRICED.expected_cost_usd(1000, 5000) == PRICED.expected_cost_usd(1000, None)
    assert replace(PRICED, max_output_tokens=20).expected_cost_usd(0, 50) == pytest.approx(200 / 1e6)


def test_half_a_price_is_no_price() -> None:
    assert replace(PRICED, usd_per_1m_output=None).expected_cost_usd(1000, None) is None


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.none() | st.integers(1, 10**6))
def test_a_longer_prompt_never_costs_less(n: int, more: int, limit: int | None) -> None:
    assert (PRICED.expected_cost_usd(n + more, limit) or 0) >= (PRICED.expected_cost_usd(n, limit) or 0)


def test_a_prompts_own_forecast_stands_before_the_usual_answer() -> None:
    assert PRICED.expected_tokens(None, 30.0) == 30
    assert PRICED.expected_tokens(20, 30.0) == 20
    assert PRICED.expected_cost_usd(0, None, 30.0) == pytest.approx(300 / 1e6)


def test_an_unknown_length_is_an_unknown_cost() -> None:
    unknown = replace(PRICED, expected_output_tokens=None)
    assert unknown.expected_tokens(50) is None
    assert unknown.expected_cost_usd(1000, 50) is None
    assert unknown.expected_cost_usd(0, None, 30.0) == PRICED.expected_cost_usd(0, None, 30.0)


def test_an_answer_lasts_until_its_first_token_and_then_token_by_token() -> None:
    timed = replace(PRICED, first_token_s=0.5, s_per_token=0.01)
    assert timed.expected_latency_s(None) == pytest.approx(0.5 + 2)
    assert timed.expected_latency_s(None, 100.0) == pytest.approx(0.5 + 1)
    assert PRICED.expected_latency_s(None) is None


def test_lengths_come_from_the_artifact_with_what_they_stand_on(artifact: Artifact) -> None:
    def pool_with(**said: object) -> list[tuple[float | None, str]]:
        told = replace(artifact, manifest=artifact.manifest.model_copy(update=said))
        return [(e.expected_output_tokens, e.tokens_basis) for e in join_pool([], [], told, {}).entries]

    assert pool_with(expected_output_tokens=(80.0, 90.0), output_tokens_estimated=(True, False)) == [
        (80.0, "estimated"),
        (90.0, "counted"),
    ]
    assert [tokens for tokens, _ in pool_with(expected_output_tokens=(80.0, None))] == [80.0, None]
    assert pool_with(expected_output_tokens=(None, None)) == [(256.0, "assumed")] * 2
