"""A remote encoder is asked over real sockets, trusted no further than its probe, and saved without its key."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from router.encoder import remote
from router.encoder.bundled import BundledEncoder
from router.encoder.registry import fit_encoder, open_encoder
from router.encoder.remote import PER_REQUEST, RemoteEncoder
from router.errors import EncoderError
from router.loopback import serve_in_thread

PROMPTS = ["What is 7 times 8?", "Is 91 prime?", "Name the capital of France."]


@dataclass
class Endpoint:
    """An embeddings endpoint that serves the bundled encoder; `faults` are answered first, one each."""

    url: str = ""
    asked: list[int] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    faults: list[Response] = field(default_factory=list)
    turned: bool = False  # another model under the same name

    def app(self) -> FastAPI:
        encoder = BundledEncoder()
        app = FastAPI()

        @app.post("/v1/embeddings")
        async def embeddings(request: Request) -> Response:
            if self.faults:
                return self.faults.pop(0)
            body = await request.json()
            if body["model"] != "small":
                return JSONResponse({"error": {"message": f"no model {body['model']}"}}, 404)
            if not all(text.strip() for text in body["input"]):
                return JSONResponse({"error": {"message": "empty input"}}, 400)
            self.asked.append(len(body["input"]))
            self.keys.append(request.headers.get("authorization"))
            vectors = encoder.encode(body["input"])
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
