"""What an application sees through the official `openai` client, over real sockets."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import Engine

from tests.serving import A_POEM, A_SUM, Gateway, entry, planted_engine, run_gateway, settings
from tests.upstreams import Upstream

KEY = "test-master-key"
UPSTREAM_KEY = "sk-upstream-secret"
FORECASTS = {"calculator": (0.9, 0.3), "poet": (0.2, 0.8), "modest": (0.6, 0.5)}
NOWHERE = "http://127.0.0.1:9/v1"  # the discard port: nothing listens


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with planted_engine(tmp_path, FORECASTS) as engine:
        yield engine


@dataclass
class Application:
    """An application's client, and the gateway that it talks to."""

    gateway: Gateway
    api: openai.OpenAI

    def ask(self, text: str = A_SUM, model: str = "auto", **more: Any) -> Any:
        return self.api.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)

    def decision(self) -> dict[str, Any]:
        (row,) = self.gateway.decisions()
        return row


def client(gateway: Gateway, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0, timeout=20)


@contextmanager
def serving(engine: Engine, calculator: str, poet: str, modest: str, **more: Any) -> Iterator[Application]:
    """A gateway whose three models have these upstreams."""
    urls = {"calculator": calculator, "poet": poet, "modest": modest}
    pool = [entry(name, url, key=UPSTREAM_KEY) for name, url in urls.items()]
    with run_gateway(engine, settings(pool, master_key=KEY, **more)) as gateway, client(gateway) as api:
        yield Application(gateway, api)


@pytest.fixture
def application(engine: Engine, upstream: Upstream) -> Iterator[Application]:
    with serving(engine, *[upstream.url("good")] * 3) as running:
        yield running


def read(stream: openai.Stream[Any]) -> tuple[str, set[str]]:
    """The text of a stream, and the models that its chunks name."""
    chunks = list(stream)
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), {c.model for c in chunks}


def test_each_prompt_goes_to_the_model_that_is_likeliest_right(application: Application) -> None:
    assert application.ask(A_SUM).model == "calculator"
    poem = application.ask(A_POEM)
    assert poem.model == "poet"
    assert poem.choices[0].message.content == "answer of vendor/poet"
    assert poem.usage.total_tokens == 15
    assert poem.vendor_extra == {"kept": [1, 2.5, None]}


def test_headers_tell_the_decision_and_sql_holds_it(application: Application) -> None:
    raw = application.api.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": A_SUM}], extra_headers={"x-request-id": "my-request-1"}
    )
    headers = raw.headers
    row = application.decision()
    assert headers["x-request-id"] == row["request_id"] == "my-request-1"
    assert headers["x-embedrouter-model"] == row["answered_by"] == row["first_choice"] == "calculator"
    assert headers["x-embedrouter-upstream-model"] == "vendor/calculator"
    assert headers["x-embedrouter-decision-id"] == row["id"]
    assert float(headers["x-embedrouter-p-correct"]) == pytest.approx(0.9, abs=1e-3)
    assert headers["x-embedrouter-policy"] == row["policy"] == "quality"
    assert headers["x-embedrouter-artifact"] == row["artifact_id"]
    assert headers["x-embedrouter-attempts"] == "1"
    assert float(headers["x-embedrouter-overhead-ms"]) > 0
    assert float(headers["x-embedrouter-cost-usd"]) == pytest.approx(15e-6)
    assert row["cost_usd"] == pytest.approx(15e-6)
    assert (row["input_tokens"], row["output_tokens"], row["status"], row["error"]) == (10, 5, 200, None)
    assert [(c["model"], c["propensity"]) for c in row["candidates"]] == [
        ("calculator", 1.0),
        ("modest", 0.0),
        ("poet", 0.0),
    ]
    assert [c["p_correct"] for c in row["candidates"]] == pytest.approx([0.9, 0.6, 0.2], abs=1e-3)
    assert [(a["model"], a["status"], a["error"]) for a in row["attempts"]] == [("calculator", 200, None)]
    assert A_SUM not in str(row)


def test_a_stream_comes_under_the_pool_name_and_is_recorded_at_its_end(application: Application) -> None:
    text, models = read(application.ask(A_POEM, stream=True, stream_options={"include_usage": True}))
    assert text == "answer of vendor/poet "
    assert models == {"poet"}
    row = application.decision()
    assert (row["streamed"], row["answered_by"], row["status"], row["error"]) == (True, "poet", 200, None)
    assert (row["input_tokens"], row["output_tokens"]) == (10, 5)


def test_the_models_are_listed_with_auto(application: Application) -> None:
    models = list(application.api.models.list())
    assert [model.id for model in models] == ["auto", "calculator", "poet", "modest"]
    assert application.api.models.retrieve("poet").embedrouter["routable"] is True  # type: ignore[attr-defined]


def test_a_concrete_name_bypasses_routing(application: Application) -> None:
    assert application.ask(A_SUM, model="poet").model == "poet"
    row = application.decision()
    assert (row["policy"], row["artifact_id"], row["p_correct"]) == ("named", None, None)


def test_a_wrong_key_is_an_authentication_error(application: Application) -> None:
    with client(application.gateway, "wrong") as api, pytest.raises(openai.AuthenticationError) as raised:
        api.chat.completions.create(model="auto", messages=[{"role": "user", "content": A_SUM}])
    assert raised.value.status_code == 401
    assert raised.value.code == "invalid_api_key"
    with client(application.gateway, "wrong") as api, pytest.raises(openai.AuthenticationError):
        api.models.list()


def test_an_unknown_model_is_not_found(application: Application) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        application.ask(model="nonesuch")
    assert (raised.value.status_code, raised.value.code, raised.value.param) == (404, "model_not_found", "model")
    assert "nonesuch" in raised.value.message


def test_a_request_may_bring_its_own_policy(application: Application) -> None:
    answer = application.ask(A_SUM, extra_body={"embedrouter": {"candidates": ["poet", "modest"]}})
    assert answer.model == "modest"
    with pytest.raises(openai.BadRequestError) as raised:
        application.ask(extra_headers={"x-embedrouter-policy": "best"})
    assert raised.value.param == "x-embedrouter-policy"


def test_where_the_first_choice_refuses_the_next_best_answers(engine: Engine, upstream: Upstream) -> None:
    with serving(engine, NOWHERE, upstream.url("good"), upstream.url("status-500")) as application:
        assert application.ask(A_SUM).model == "poet"
        row = application.decision()
    assert (row["first_choice"], row["answered_by"]) == ("calculator", "poet")
    assert row["p_correct"] == pytest.approx(0.2, abs=1e-3)
    assert [(a["model"], a["status"], a["error"]) for a in row["attempts"]] == [
        ("calculator", None, "refused"),
        ("modest", 500, "http_status"),
        ("poet", 200, None),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_where_all_refuse_the_client_gets_our_error_with_the_attempts(
    engine: Engine, upstream: Upstream, stream: bool
) -> None:
    with serving(engine, NOWHERE, upstream.url("status-401"), upstream.url("status-503")) as application:
        with pytest.raises(openai.APIStatusError) as raised:
            application.ask(A_SUM, stream=stream)
        row = application.decision()
    assert (raised.value.status_code, raised.value.code) == (502, "upstream_failed")
    assert isinstance(raised.value.body, dict)
    assert [(a["model"], a["error"]) for a in raised.value.body["attempts"]] == [
        ("calculator", "refused"),
        ("modest", "http_status"),
        ("poet", "http_status"),
    ]
    assert UPSTREAM_KEY not in str(raised.value.body)
    assert (row["answered_by"], row["status"], row["error"]) == (None, 502, "upstream_failed")


def test_a_stream_that_is_long_in_coming_is_read_through_its_comments(engine: Engine, upstream: Upstream) -> None:
    patient = {"timeouts": {"keep_alive_s": 0.1}}
    with serving(engine, upstream.url("stream-thinks"), upstream.url("late-500"), NOWHERE, **patient) as late:
        text, models = read(late.ask(A_SUM, "calculator", stream=True))
        assert (text.strip(), models) == ("answer of vendor/calculator", {"calculator"})
        with pytest.raises(openai.APIError, match="no upstream answered, 1 tried"):
            read(late.ask(A_POEM, "poet", stream=True))


@pytest.mark.parametrize("behaviour", ["stream-dies", "stream-cut", "stream-garbage", "stream-error-later"])
def test_an_upstream_that_dies_mid_stream_is_an_error_not_a_silent_end(
    engine: Engine, upstream: Upstream, behaviour: str
) -> None:
    with serving(engine, upstream.url(behaviour), upstream.url("good"), upstream.url("good")) as application:
        seen: list[str] = []
        stream = application.ask(A_SUM, stream=True)
        with pytest.raises(openai.APIError) as raised:
            seen.extend(chunk.choices[0].delta.content for chunk in stream)
        row = application.decision()
    assert "".join(seen).startswith("half an ")
    assert raised.value.code == "upstream_stream_failed"
    assert UPSTREAM_KEY not in raised.value.message
    assert row["error"].startswith("stream_")
    assert row["attempts"][0]["error"] == row["error"].removeprefix("stream_")
    assert len(row["attempts"]) == 1
