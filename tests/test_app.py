"""Every path answers in OpenAI's shape, with a request id, and a defect of ours shows nothing of itself."""

import logging
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from router.service import Service
from tests.serving import Gateway, entry, planted_engine, run_gateway, settings


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("app")
    pool = [entry("org/model", "http://127.0.0.1:9/v1", aliases=["модель"])]
    configuration = settings(pool, keys=[{"name": "app", "key": "k"}])
    forecasts = {"org/model": (0.5, 0.5), "no-upstream": (0.5, 0.5)}
    with planted_engine(folder, forecasts) as engine, run_gateway(engine, configuration) as running:
        yield running


def get(gateway: Gateway, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    return httpx.request(method, f"{gateway.url}{path}", headers={"authorization": "Bearer k", **headers})


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/v1/nowhere", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/nonesuch", 404, "model_not_found"),
    ],
)
def test_what_there_is_not_is_refused_in_the_same_shape(
    gateway: Gateway, method: str, path: str, status: int, code: str
) -> None:
    answer = get(gateway, path, method)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert {"message", "param"} <= set(error)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/org/model", "/nowhere", "/health/live"])
def test_every_response_has_one_request_id(gateway: Gateway, path: str) -> None:
    assert get(gateway, path, **{"x-request-id": "abc.DEF:1"}).headers.get_list("x-request-id") == ["abc.DEF:1"]
    made = get(gateway, path).headers["x-request-id"]
    assert made != get(gateway, path).headers["x-request-id"]


@pytest.mark.parametrize("bad", ["a b", "x" * 200, "a<b>", '"'])
def test_a_request_id_that_is_not_sane_is_replaced(gateway: Gateway, bad: str) -> None:
    assert get(gateway, "/health/live", **{"x-request-id": bad}).headers["x-request-id"].startswith("req-")


def test_models_need_a_key_and_health_does_not(gateway: Gateway) -> None:
    assert get(gateway, "/v1/models", authorization="Bearer wrong").status_code == 401
    assert httpx.get(f"{gateway.url}/v1/models").headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{gateway.url}/health/ready").json()["status"] == "ready"


def test_ready_says_what_serves(gateway: Gateway) -> None:
    answer = get(gateway, "/health/ready").json()
    assert (answer["n_routable_models"], answer["n_models"]) == (1, 2)
    assert len(answer["artifact"]) == 16


def test_models_are_found_by_names_with_slashes_and_by_aliases(gateway: Gateway) -> None:
    for name in ("org/model", "модель"):
        assert get(gateway, f"/v1/models/{name}").json()["id"] == "org/model"
    assert get(gateway, "/v1/models/auto").json()["embedrouter"] == {"routable": True, "reason": None}
    assert get(gateway, "/v1/models/no-upstream").json()["embedrouter"]["reason"] == "no upstream"


@pytest.mark.parametrize(("at", "stream"), [("decide", False), ("stream", True)])
def test_a_defect_is_500_without_its_details(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: str, stream: bool
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the inner secret")

    monkeypatch.setattr(Service, at, broken)  # no input is known that does this: a defect has to be planted
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    headers = {"authorization": "Bearer k", "x-request-id": "mine"}
    with caplog.at_level(logging.ERROR):
        answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert answer.headers["connection"] == "close"  # as the server does: the next request needs a new one
    assert "mine" in answer.json()["error"]["message"]
    assert "inner secret" not in answer.text


def test_serving_loads_nothing_that_only_learning_needs() -> None:
    learning = ("scipy", "datasketch", "sklearn", "transformers", "plotly")
    script = f"import sys, router.app, router.encoder.lsa; print([m for m in {learning!r} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
