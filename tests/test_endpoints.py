"""The other endpoints through the official client: completions, responses, embeddings, and all without /v1."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.serving import A_POEM, A_SUM, Gateway, entry, planted_engine, run_gateway, settings
from tests.upstreams import Upstream

FORECASTS = {"calculator": (0.9, 0.3), "poet": (0.2, 0.8), "faulty": (0.95, 0.1)}


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    urls = {"calculator": "good", "poet": "good", "faulty": "response-fails"}
    pool = [entry(name, upstream.url(behaviour)) for name, behaviour in urls.items()]
    pool += [entry(name, upstream.url(f"stream-{name}")) for name in ("dies", "typeless")]
    pool += [entry(name, upstream.url(f"response-{name}")) for name in ("opens", "unended")]
    folder = tmp_path_factory.mktemp("endpoints")
    with planted_engine(folder, FORECASTS) as engine, run_gateway(engine, settings(pool)) as running:
        yield running


@pytest.fixture
def api(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0, timeout=20) as client:
        yield client


SOUND = {"embedrouter": {"candidates": ["calculator", "poet"]}}


@pytest.mark.parametrize(("prompt", "model"), [(A_SUM, "calculator"), (A_POEM, "poet")])
def test_a_bare_prompt_is_routed(api: openai.OpenAI, gateway: Gateway, prompt: str, model: str) -> None:
    answer = api.completions.create(model="auto", prompt=prompt, extra_body=SOUND)
    assert (answer.model, answer.choices[0].text) == (model, f"answer of vendor/{model}")
    stream = api.completions.create(model="auto", prompt=prompt, stream=True, extra_body=SOUND)
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks).strip() == f"answer of vendor/{model}"
    assert {chunk.model for chunk in chunks} == {model}


@pytest.mark.parametrize(("prompt", "model"), [(A_SUM, "calculator"), (A_POEM, "poet")])
def test_a_response_is_routed_and_its_tokens_are_counted(
    api: openai.OpenAI, gateway: Gateway, upstream: Upstream, prompt: str, model: str
) -> None:
    raw = api.responses.with_raw_response.create(
        model="auto", instructions="be kind", input=prompt, metadata={"a": "b"}, extra_body=SOUND
    )
    answer = raw.parse()
    assert (answer.model, answer.output_text) == (model, f"answer of vendor/{model}")
    asked = upstream.asked[-1]
    assert asked.path.endswith("/v1/responses")
    said = {"instructions": "be kind", "input": prompt, "metadata": {"a": "b"}}
    assert asked.body == {"model": f"vendor/{model}", **said}
    row = gateway.decision(raw.headers["x-request-id"])
    assert (row["answered_by"], row["input_tokens"], row["output_tokens"]) == (model, 10, 5)


def test_a_streamed_response_comes_as_typed_events(api: openai.OpenAI, gateway: Gateway) -> None:
    with api.responses.with_streaming_response.create(model="auto", input=A_SUM, stream=True, extra_body=SOUND) as raw:
        events = list(raw.parse())
        request_id = raw.headers["x-request-id"]
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta").startswith("answer of")
    assert {e.response.model for e in events if hasattr(e, "response")} == {"calculator"}
    row = gateway.decision(request_id)
    assert (row["status"], row["error"], row["output_tokens"]) == (200, None, 5)


def test_a_response_that_fails_before_its_content_is_answered_by_the_next(api: openai.OpenAI, gateway: Gateway) -> None:
    events = list(api.responses.create(model="auto", input=A_SUM, stream=True))
    assert {e.response.model for e in events if hasattr(e, "response")} == {"calculator"}
    assert [e.type for e in events].count("response.created") == 1
    assert "response.failed" not in [e.type for e in events]


def test_a_response_that_breaks_off_ends_in_one_error(gateway: Gateway) -> None:
    body = {"model": "dies", "input": A_SUM, "stream": True}
    text = httpx.post(f"{gateway.base_url}/responses", json=body, timeout=20).text
    assert text.count("event: error") == 1
    last = json.loads(text.rstrip().splitlines()[-1].removeprefix("data: "))
    assert (last["type"], last["code"]) == ("error", "upstream_stream_failed")


def test_a_response_that_is_only_announced_is_no_answer_yet(gateway: Gateway) -> None:
    answer = httpx.post(
        f"{gateway.base_url}/responses", json={"model": "opens", "input": A_SUM, "stream": True}, timeout=20
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed")


def test_a_response_without_its_last_event_is_broken_off(gateway: Gateway) -> None:
    body = {"model": "unended", "input": A_SUM, "stream": True}
    answer = httpx.post(f"{gateway.base_url}/responses", json=body, timeout=20)
    kinds = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert kinds == ["response.output_text.delta", "error"]
    assert gateway.decision(answer.headers["x-request-id"])["error"] == "stream_truncated"


def test_an_item_that_another_upstream_made_is_refused_by_name(api: openai.OpenAI) -> None:
    items: Any = [{"role": "user", "content": A_SUM}, {"type": "item_reference", "id": "rs_1"}]
    with pytest.raises(openai.BadRequestError) as raised:
        api.responses.create(model="auto", input=items)
    assert (raised.value.param, raised.value.code) == ("input.1", "unsupported_parameter")


def test_events_without_a_readable_type_are_no_answer(gateway: Gateway) -> None:
    body = {"model": "typeless", "input": A_SUM, "stream": True}
    answer = httpx.post(f"{gateway.base_url}/responses", json=body, timeout=20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed")
    assert gateway.decision(answer.headers["x-request-id"])["attempts"][0]["error"] == "empty"


@pytest.mark.parametrize("param", ["previous_response_id", "conversation", "background"])
def test_what_needs_a_state_is_refused_by_name(api: openai.OpenAI, param: str) -> None:
    extra: dict[str, Any] = {param: True if param == "background" else "resp_1"}
    with pytest.raises(openai.BadRequestError) as raised:
        api.responses.create(model="auto", input=A_SUM, extra_body=extra)
    assert (raised.value.param, raised.value.code) == (param, "unsupported_parameter")


def test_embeddings_are_of_the_model_that_is_named(api: openai.OpenAI, gateway: Gateway, upstream: Upstream) -> None:
    raw = api.embeddings.with_raw_response.create(model="poet", input=[A_SUM, A_POEM], encoding_format="float")
    answer, request_id = raw.parse(), raw.headers["x-request-id"]
    assert (answer.model, answer.data[0].embedding, answer.usage.prompt_tokens) == ("poet", [0.25, -0.5], 10)
    assert upstream.asked[-1].body["input"] == [A_SUM, A_POEM]
    row = gateway.decision(request_id)
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (10, 0, pytest.approx(10e-6))
    with pytest.raises(openai.BadRequestError, match="name a model"):
        api.embeddings.create(model="auto", input=A_SUM, encoding_format="float")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/completions", {"messages": [{"role": "user", "content": A_SUM}]}),
        ("/completions", {"prompt": A_SUM}),
        ("/responses", {"input": A_SUM}),
        ("/embeddings", {"input": A_SUM}),
    ],
)
def test_every_endpoint_answers_without_v1_too(gateway: Gateway, path: str, body: dict[str, Any]) -> None:
    for prefix in ("", "/v1"):
        answer = httpx.post(f"{gateway.url}{prefix}{path}", json={"model": "poet", **body}, timeout=20)
        assert (answer.status_code, answer.json()["model"]) == (200, "poet")
        wrong = httpx.post(f"{gateway.url}{prefix}{path}", json={"model": "poet"}, timeout=20)
        assert (wrong.status_code, wrong.json()["error"]["type"]) == (400, "invalid_request_error")
        assert httpx.get(f"{gateway.url}{prefix}{path}").json()["error"]["code"] == "method_not_allowed"
    assert httpx.get(f"{gateway.url}/models/poet").json()["id"] == "poet"
    assert httpx.get(f"{gateway.url}/models").json() == httpx.get(f"{gateway.base_url}/models").json()
