"""A remote encoder is asked over real sockets, trusted no further than its probe, and saved without its key."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy import Engine

from data.database import ready_engine
from router.artifact import Artifact, write_artifact
from router.champion import WARM_WORDS, ChampionWatch
from router.choice import ENCODER_FAILED, LATE
from router.encoder import remote
from router.encoder.base import Encoder
from router.encoder.bundled import BundledEncoder
from router.encoder.registry import fit_encoder, open_encoder
from router.encoder.remote import PER_REQUEST, RemoteEncoder
from router.errors import EncoderError
from router.loopback import serve_in_thread
from tests.serving import A_SUM, Gateway, entry, planted_artifact, register, run_gateway, settings
from tests.upstreams import Upstream

PROMPTS = ["What is 7 times 8?", "Is 91 prime?", "Name the capital of France."]


@dataclass
class Endpoint:
    """An embeddings endpoint that serves an encoder; `faults` are answered first, one each."""

    url: str = ""
    asked: list[int] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    faults: list[Response] = field(default_factory=list)
    turned: bool = False  # another model under the same name
    down: bool = False
    delay_s: float = 0.0
    encoder: Encoder = field(default_factory=BundledEncoder)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/embeddings")
        async def embeddings(request: Request) -> Response:
            await asyncio.sleep(self.delay_s)
            if self.down:
                return Response(status_code=503)
            if self.faults:
                return self.faults.pop(0)
            body = await request.json()
            if body["model"] != "small":
                return JSONResponse({"error": {"message": f"no model {body['model']}"}}, 404)
            if not all(text.strip() for text in body["input"]):
                return JSONResponse({"error": {"message": "empty input"}}, 400)
            self.asked.append(len(body["input"]))
            self.keys.append(request.headers.get("authorization"))
            vectors = self.encoder.encode(body["input"])
            if self.turned:
                vectors = np.roll(vectors, 1, axis=1)
            rows = [{"index": i, "embedding": vector.tolist()} for i, vector in enumerate(vectors)]
            return JSONResponse({"object": "list", "data": rows[::-1]})  # in any order: the index counts

        return app


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    with serve_in_thread(endpoint.app()) as url:
        endpoint.url = f"{url}/v1"
        yield endpoint


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_S", 0.0)


def spec(endpoint: Endpoint) -> str:
    return f"remote:{endpoint.url}#small"


def test_it_gives_the_endpoints_vectors_in_the_prompts_order(endpoint: Endpoint) -> None:
    encoder = fit_encoder(spec(endpoint), [])
    many = [f"{prompt} {i}" for i in range(20) for prompt in PROMPTS]
    np.testing.assert_allclose(encoder.encode(many), BundledEncoder().encode(many), atol=1e-6)
    assert encoder.dim == BundledEncoder().dim
    assert max(endpoint.asked) <= PER_REQUEST + 1
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_white_space_is_not_sent(endpoint: Endpoint) -> None:
    vectors = fit_encoder(spec(endpoint), []).encode(["", " \n", PROMPTS[0]])
    assert not vectors[:2].any()
    assert vectors[2].any()


def test_a_long_prompt_loses_its_middle(endpoint: Endpoint) -> None:
    encoder = fit_encoder(spec(endpoint), [])
    ends = [f"first {'x ' * n} last" for n in (5_000, 6_000)]
    np.testing.assert_array_equal(encoder.encode(ends[:1]), encoder.encode(ends[1:]))


def test_a_saved_one_comes_back_without_asking(endpoint: Endpoint, tmp_path: Path) -> None:
    encoder = fit_encoder(spec(endpoint), [])
    encoder.save(tmp_path)
    n_asked = len(endpoint.asked)
    again = open_encoder(tmp_path)
    assert len(endpoint.asked) == n_asked
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(again.encode(PROMPTS), encoder.encode(PROMPTS))


def test_another_model_under_the_same_name_is_noticed(endpoint: Endpoint, tmp_path: Path) -> None:
    fit_encoder(spec(endpoint), []).save(tmp_path)
    endpoint.turned = True
    with pytest.raises(EncoderError, match="is not the encoder that was trained with"):
        open_encoder(tmp_path).encode(PROMPTS)


def test_an_edited_one_is_refused(endpoint: Endpoint, tmp_path: Path) -> None:
    fit_encoder(spec(endpoint), []).save(tmp_path)
    saved = tmp_path / "encoder.json"
    saved.write_text(saved.read_text(encoding="utf-8").replace("small", "large"), encoding="utf-8")
    with pytest.raises(EncoderError, match="was changed since the artifact was trained"):
        open_encoder(tmp_path)


def test_its_key_comes_from_the_environment_and_is_saved_nowhere(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(remote.KEY_VARIABLE, "sk-of-the-encoder")
    fit_encoder(spec(endpoint), []).save(tmp_path)
    assert endpoint.keys == ["Bearer sk-of-the-encoder"]
    assert "sk-of-the-encoder" not in (tmp_path / "encoder.json").read_text(encoding="utf-8")


def test_training_asks_again_and_serving_does_not(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.faults = [Response(status_code=503), Response(status_code=429)]
    encoder = fit_encoder(spec(endpoint), [])
    encoder.save(tmp_path)
    endpoint.faults = [Response(status_code=503, content="warming up")]
    with pytest.raises(EncoderError, match=r"answered 503 for small: \"warming up\""):
        open_encoder(tmp_path).encode(PROMPTS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data": []}',
        b'{"data": [{"index": 0}]}',
        b'{"data": [{"index": 0, "embedding": "AAAA"}]}',
        b'{"data": [{"index": 0, "embedding": [NaN, 1]}]}',
        b'{"data": [{"index": 0, "embedding": []}]}',
    ],
)
def test_what_is_no_answer_is_an_error(endpoint: Endpoint, content: bytes) -> None:
    endpoint.faults = [Response(content=content)]
    with pytest.raises(EncoderError, match=endpoint.url):
        fit_encoder(spec(endpoint), [])


def test_an_unknown_model_is_told_at_once(endpoint: Endpoint) -> None:
    with pytest.raises(EncoderError, match="answered 404 for large"):
        fit_encoder(f"remote:{endpoint.url}#large", [])


def test_nobody_at_home_is_told() -> None:
    with pytest.raises(EncoderError, match=r"http://127\.0\.0\.1:1/v1 does not answer"):
        fit_encoder("remote:http://127.0.0.1:1/v1#small", [])


@pytest.mark.parametrize("argument", ["", "small", "http://host/v1", "ftp://host#small", "http://#small", "http://[#x"])
def test_an_address_needs_url_and_model(argument: str) -> None:
    with pytest.raises(EncoderError, match="say `remote:URL#MODEL`"):
        RemoteEncoder.load(argument)


def test_credentials_do_not_stand_in_the_address() -> None:
    with pytest.raises(EncoderError, match=remote.KEY_VARIABLE) as refused:
        RemoteEncoder.load("http://me:secret@host/v1#small")
    assert "secret" not in str(refused.value)


def route(gateway: Gateway, text: str) -> tuple[str, str | None]:
    """The model that `auto` is answered by, and what the decision's note says."""
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    response = httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=20)
    assert response.status_code == 200, response.text
    row = gateway.decision(response.headers["x-request-id"])
    return response.json()["model"], row["policy_settings"].get("note")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = ready_engine(f"sqlite:///{tmp_path}/remote.db")
    yield engine
    engine.dispose()


def promote_remote(engine: Engine, endpoint: Endpoint, folder: Path) -> Artifact:
    """Promote an artifact whose encoder is the endpoint; a sum is for the calculator."""
    planted = planted_artifact(folder / "planted", {"calculator": (0.9, 0.3), "poet": (0.2, 0.8)})
    endpoint.encoder = planted.encoder
    artifact = write_artifact(folder / "artifacts", planted.manifest, planted.scorer, fit_encoder(spec(endpoint), []))
    register(engine, artifact)
    return artifact


def test_while_it_is_away_or_slow_requests_go_to_the_default_model(
    endpoint: Endpoint, upstream: Upstream, engine: Engine, tmp_path: Path
) -> None:
    artifact = promote_remote(engine, endpoint, tmp_path)
    pool = [entry(name, upstream.url("good")) for name in artifact.model_names]
    by_default = {"policy": {"default_model": "poet"}, "encoder": {"deadline_s": 2}}
    endpoint.down = True  # as the router starts, too
    with run_gateway(engine, settings(pool, **by_default)) as gateway:
        failed = f"{ENCODER_FAILED}: the default model"
        assert route(gateway, A_SUM) == ("poet", failed)
        body = {"model": "auto", "messages": [{"role": "user", "content": A_SUM}]}
        explained = httpx.post(f"{gateway.base_url}/route", json=body, timeout=20).json()
        assert (explained["note"], explained["evidence"]["nearest"]) == (failed, [])
        endpoint.down = False
        assert route(gateway, A_SUM) == ("calculator", None)
        endpoint.delay_s = 4
        assert route(gateway, A_SUM) == ("poet", f"{LATE}: the default model")
    endpoint.delay_s = 0
    with run_gateway(engine, settings(pool)) as gateway:
        assert route(gateway, A_SUM) == ("calculator", None)
        endpoint.down = True
        usually = f"{ENCODER_FAILED}: by each model's usual P(correct), there being no `policy.default_model`"
        assert route(gateway, A_SUM) == ("calculator", usually)


def test_it_is_asked_before_an_artifact_serves(endpoint: Endpoint, engine: Engine, tmp_path: Path) -> None:
    artifact = promote_remote(engine, endpoint, tmp_path)
    endpoint.asked.clear()
    watch = ChampionWatch(engine, settings())
    assert watch.current.artifact is not None
    assert watch.current.artifact.id == artifact.id
    n = len(WARM_WORDS)
    assert endpoint.asked == [2, *[1] * (n - 1), n]  # each alone, the first with the probe; then together


def test_an_artifact_whose_encoder_is_away_replaces_none(endpoint: Endpoint, engine: Engine, tmp_path: Path) -> None:
    first = planted_artifact(tmp_path / "first", {"calculator": (0.5, 0.5), "poet": (0.5, 0.5)})
    register(engine, first)
    watch = ChampionWatch(engine, settings())
    second = promote_remote(engine, endpoint, tmp_path)
    endpoint.down = True
    assert not watch.refresh()
    assert watch.current.artifact is not None
    assert watch.current.artifact.id == first.id
    assert "answered 503" in (watch.problem or "")
    endpoint.down = False
    assert watch.refresh()
    assert watch.current.artifact.id == second.id
