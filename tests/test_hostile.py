"""Hostile bytes over real sockets: every one is answered plainly, and the server goes on.

For each: no 5xx of our own making, no traceback and no secret in a log or an answer, and the next request is answered.
"""

import json
import logging
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import strategies
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from router.logs import JsonFormatter
from router.overrides import EXTENSION
from tests.serving import A_SUM, Gateway, entry, planted_engine, run_gateway, settings
from tests.upstreams import Upstream

FORECASTS = {"calculator": (0.9, 0.3), "poet": (0.2, 0.8)}
MASTER_KEY, UPSTREAM_KEY = "sk-master-secret", "sk-upstream-secret"
KEY = {"authorization": f"Bearer {MASTER_KEY}"}
N_DRAWN = 40  # requests for each operation
MAX_BODY_BYTES = 25 * 1024 * 1024
CHAT = "/v1/chat/completions"
ENDPOINTS: dict[str, dict[str, Any]] = {  # path -> the least body that is answered
    CHAT: {"model": "auto", "messages": [{"role": "user", "content": A_SUM}]},
    "/v1/completions": {"model": "auto", "prompt": A_SUM},
    "/v1/responses": {"model": "auto", "input": A_SUM},
    "/v1/embeddings": {"model": "poet", "input": A_SUM},
    "/v1/route": {"model": "auto", "messages": [{"role": "user", "content": A_SUM}]},
    "/v1/feedback": {"decision_id": "nobody", "correct": True},
}


class Lines(logging.Handler):
    """Every line that the process would log, with nothing blotted out."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"


@dataclass
class Bench:
    """A gateway with keys, and all that it logs."""

    gateway: Gateway
    lines: Lines
    api: httpx.Client

    def send(self, raw: bytes, timeout_s: float = 10.0) -> "Seen":
        """Write bytes to a socket, and read one answer."""
        url = httpx.URL(self.gateway.url)
        seen = b""
        with socket.create_connection((url.host, url.port or 0), timeout=timeout_s) as connection:
            connection.sendall(raw)
            while not _is_whole(seen) and (part := connection.recv(65536)):
                seen += part
        head, _, content = seen.partition(b"\r\n\r\n")
        found = Seen(int(head.split()[1]), head.decode("latin-1"), content.decode())
        self.check(found.status, found.head + found.content)
        return found

    def post(self, path: str, content: bytes, status: int | None = None) -> httpx.Response:
        """Post a body over a kept connection."""
        answer = self.api.post(path, content=content, headers={"content-type": "application/json"})
        self.check(answer.status_code, f"{answer.headers} {answer.text}")
        assert status in (None, answer.status_code), answer.text[:300]
        if answer.status_code >= 400:
            assert {"message", "type", "param", "code"} <= answer.json()["error"].keys()
        return answer

    def check(self, status: int, text: str) -> None:
        """What holds of every answer, and of the log beside it."""
        assert 200 <= status < 500, text[:300]
        for held in (text, self.lines.text):
            assert MASTER_KEY not in held
            assert UPSTREAM_KEY not in held
        assert "Traceback" not in self.lines.text
        assert "ERROR" not in self.lines.text

    def still_answers(self) -> None:
        assert self.post(CHAT, json.dumps(ENDPOINTS[CHAT]).encode()).json()["model"] == "calculator"


@dataclass
class Seen:
    """One answer as it stands on the wire."""

    status: int
    head: str
    content: str


def _is_whole(seen: bytes) -> bool:
    head, found, content = seen.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    if not found:
        return False
    return len(content) >= int(length[1]) if length else content.endswith(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def bench(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    pool = [entry(name, upstream.url("good"), key=UPSTREAM_KEY, context_window=10_000) for name in FORECASTS]
    limits = {"max_body_bytes": MAX_BODY_BYTES, "body_timeout_s": 0.5}
    lines = Lines()
    root = logging.getLogger()
    before = root.level
    root.addHandler(lines)
    root.setLevel(logging.INFO)
    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            planted_engine(tmp_path_factory.mktemp("hostile"), FORECASTS) as engine,
            run_gateway(engine, settings(pool, master_key=MASTER_KEY, server=limits)) as gateway,
            httpx.Client(base_url=gateway.url, headers=KEY, timeout=30) as api,
        ):
            patch.setattr(gateway.app.state.feedback, "_patience_s", 0.05)  # a decision of nobody's is soon given up
            yield Bench(gateway, lines, api)
    finally:
        root.removeHandler(lines)
        root.setLevel(before)


@pytest.fixture(autouse=True)
def goes_on(bench: Bench) -> Iterator[None]:
    """Whatever a test did, the server answers after it, and logged nothing that it should not."""
    bench.lines.text = ""
    yield
    bench.still_answers()


def request(path: str, content: bytes = b"", *headers: str, length: bool = True, method: str = "POST") -> bytes:
    """A request as bytes, with a key."""
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"authorization: Bearer {MASTER_KEY}", *headers]
    if length:
        lines.append(f"content-length: {len(content)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content


def body(path: str = CHAT, **more: Any) -> bytes:
    return json.dumps({**ENDPOINTS[path], **more}).encode()


def with_raw(value: bytes, path: str = CHAT, field: str = "metadata") -> bytes:
    """A body in which a field has a value that no library would write."""
    return body(path, **{field: "?"}).replace(b'"?"', value)


DEEP = 100_000
UNREADABLE = {
    "nothing": b"",
    "blank": b" \r\n\t",
    "half": b'{"model": "au',
    "two": b"{}{}",
    "a list": b"[]",
    "null": b"null",
    "a number": b"1e400",
    "form": b"model=auto&messages=hi",
    "deep lists": b"[" * DEEP,
    "deep lists, closed": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep in a field": with_raw(b"[" * DEEP + b"]" * DEEP),
    "deep in what is read": with_raw(b'[{"role": "user", "content": ' * DEEP + b"1" + b"}]" * DEEP, field="messages"),
    "not UTF-8": body().replace(b"auto", b"\xff\xfe\x80"),
    "an overlong slash": body().replace(b"auto", b"\xc0\xaf"),
    "a bare NUL": body().replace(b"auto", b"a\x00"),
    "NaN": with_raw(b"NaN"),
    "Infinity": with_raw(b"[Infinity]"),
    "-Infinity": with_raw(b'{"a": -Infinity}'),
    "an infinite number": with_raw(b"1e400"),
    "a number of 5,000 digits": with_raw(b"9" * 5000),
    "compressed": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
}


@pytest.mark.parametrize("path", ENDPOINTS)
def test_what_is_no_json_object_is_400_on_every_endpoint(bench: Bench, path: str) -> None:
    for content in UNREADABLE.values():
        bench.post(path, content, status=400)


READABLE = {
    "with a byte order mark": b"\xef\xbb\xbf" + body(),
    "in UTF-16": body().decode().encode("utf-16"),
    "a key that stands twice": body().replace(b'"model"', b'"model": "nobody", "model"'),
    "a key without letters": with_raw(b'{"": {"": null}}'),
    "half a character": with_raw(b'"\\ud800"'),
    "half a character as a key": with_raw(b'{"\\udfff": 1}'),
    "an escaped NUL": with_raw(b'"\\u0000"'),
    "a number of 4,300 digits": with_raw(b"9" * 4300),
    "a long fraction": with_raw(b"0." + b"9" * 100_000),
    "nearly infinite": with_raw(b"1e308"),
    "a minus zero": with_raw(b"-0"),
    "a long text": with_raw(b'"' + b"x" * 5_000_000 + b'"'),
    "many keys": with_raw(b"{" + b",".join(b'"%d": 1' % n for n in range(100_000)) + b"}"),
    "many messages": with_raw(b"[" + b",".join([b'{"role": "user", "content": ""}'] * 50_000) + b"]", field="messages"),
    "much blank": b" " * 5_000_000 + body(),
}


@pytest.mark.parametrize("content", READABLE.values(), ids=READABLE.keys())
def test_what_is_only_odd_is_answered(bench: Bench, content: bytes) -> None:
    bench.post(CHAT, content, status=200)


# every field that routing looks at, with the endpoint where it does
READ = {
    CHAT: [
        *("model", "stream", "stream_options", "messages", "embedrouter", "tools", "functions", "response_format"),
        *("modalities", "audio", "n", "logprobs", "top_logprobs", "max_tokens", "max_completion_tokens"),
        *(f"messages.0.{name}" for name in ("role", "content", "tool_calls", "function_call")),
        *(f"messages.0.content.0.{name}" for name in ("type", "text")),
        *(
            f"embedrouter.{name}"
            for name in ("policy", "min_p_correct", "lambda", "usd_per_correct", "candidates", "max_cost_usd")
        ),
        *("embedrouter.max_latency_s", "embedrouter.candidates.0", "embedrouter.unknown"),
        *("stream_options.include_usage", "stream_options.continuous_usage_stats", "response_format.type"),
    ],
    "/v1/route": ["model", "messages", "max_tokens"],
    "/v1/completions": ["model", "stream", "prompt", "prompt.0", "best_of", "n", "max_tokens"],
    "/v1/responses": [
        *("model", "stream", "input", "instructions", "text", "text.format", "text.format.type", "max_output_tokens"),
        *("input.0", "input.0.type", "input.0.role", "input.0.content", "input.0.output", "previous_response_id"),
    ],
    "/v1/embeddings": ["model", "input", "input.0"],
    "/v1/feedback": ["decision_id", "correct", "score", "thumbs", "source"],
}
WRONG = (
    *("null", "true", "0", "-1", "1", "2.5", "1e308", "9" * 4300, "-" + "9" * 4300, '""', '"x"', '"auto"', '"\\ud800"'),
    *('"\\u0000\\r\\nx-evil: 1"', "[]", "{}", "[[]]", "[null]", "[1]", '[""]', "[{}]", '{"type": null}', '{"a": [{}]}'),
)
FIELDS = [(path, field) for path, fields in READ.items() for field in fields]


@pytest.mark.parametrize(("path", "field"), FIELDS, ids=[f"{path} {field}" for path, field in FIELDS])
def test_no_type_of_a_field_that_is_read_is_a_defect(bench: Bench, path: str, field: str) -> None:
    for value in WRONG:
        bench.post(path, json.dumps(planted(ENDPOINTS[path], field)).replace('"?"', value).encode())


def planted(sound: dict[str, Any], field: str) -> dict[str, Any]:
    """A sound body with a mark at a place, which is made where it is not there."""
    made: Any = {**json.loads(json.dumps(sound))}
    if "content.0" in field:
        made["messages"][0]["content"] = [{"type": "text", "text": A_SUM}]
    if field.startswith(("input.0", "prompt.0")):
        name = field.split(".")[0]
        made[name] = [{"role": "user", "content": A_SUM}] if name == "input" else [A_SUM]
    if "candidates.0" in field:
        made["embedrouter"] = {"candidates": ["poet"]}
    if field.startswith("stream_options"):
        made["stream"] = True
    place = made
    *parents, last = field.split(".")
    for name in parents:
        place = place.setdefault(name, {}) if isinstance(place, dict) else place[int(name)]
    if isinstance(place, dict):
        place[last] = "?"
    else:
        place[int(last)] = "?"
    return cast(dict[str, Any], made)


INJECTED = "x\r\nx-evil: 1\r\n\r\n<script>"


@pytest.mark.parametrize("path", [path for path in ENDPOINTS if path != "/v1/feedback"])
def test_a_line_break_in_a_models_name_makes_no_header(bench: Bench, path: str) -> None:
    for name in (INJECTED, "auto\r\n", "\r\nauto", "\n", "\x00", "poet\u2028", "\u010a\u010d", "é" * 5000):
        seen = bench.send(request(path, body(path, model=name)))
        assert seen.status == 404
        assert "x-evil" not in seen.head
        assert json.loads(seen.content)["error"]["code"] == "model_not_found"


def test_a_line_break_in_what_a_stream_or_a_header_repeats_makes_no_header(bench: Bench) -> None:
    for extension in ({"candidates": [INJECTED]}, {"policy": INJECTED}, {INJECTED: 1}):
        seen = bench.send(request(CHAT, body(embedrouter=extension, stream=True)))
        assert (seen.status, "x-evil" in seen.head) == (400, False)
    for header in ("x-request-id: a\x00b", "x-embedrouter-candidates: %0d%0ax-evil:%201", "x-embedrouter-policy: \xff"):
        seen = bench.send(request(CHAT, body(), header))
        assert "x-evil" not in seen.head.replace("%0D%0Ax-evil", "")
        assert seen.status == 400 or "x-request-id: req-" in seen.head


NO_HTTP = {
    "a folded header": request("/v1/models", b"", "x-request-id: a\r\n x-evil: 1", method="GET"),
    "a length below zero": request(CHAT, b"", "content-length: -5", length=False),
    "two lengths": request(CHAT, b"{}", "content-length: 3"),
    "a length and chunks": request(CHAT, b"5\r\nhello\r\n0\r\n\r\n", "transfer-encoding: chunked"),
    "a chunk without a length": request(CHAT, b"zz\r\n{}\r\n0\r\n\r\n", "transfer-encoding: chunked", length=False),
    "bytes in the path": b"GET /v1/models/\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00" * 20 + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a proxy's CONNECT": b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("raw", NO_HTTP.values(), ids=NO_HTTP.keys())
def test_what_is_no_http_is_400(bench: Bench, raw: bytes) -> None:
    assert bench.send(raw).status == 400


ODD_HTTP = {
    "no content type": (request(CHAT, body()), 200),
    "another content type": (request(CHAT, body(), "content-type: text/plain; charset=utf-16"), 200),
    "a content type of nothing": (request(CHAT, body(), "content-type: "), 200),
    "a form that is JSON": (request(CHAT, body(), "content-type: multipart/form-data; boundary=x"), 200),
    "no length": (request(CHAT, length=False), 400),
    "an encoding that it has not": (request(CHAT, body(), "content-encoding: gzip"), 200),
    "a host that is none": (request(CHAT, body()).replace(b"host: x", b"host: [::1"), 200),
    "a host that is none, nowhere": (request("/nowhere").replace(b"host: x", b"host: ]["), 404),
    "no host": (request("/v1/models", method="GET").replace(b"host: x\r\n", b""), 200),
    "a slash too many": (request(f"{CHAT}/", body()).replace(b"host: x", b"host: evil.example"), 404),
    "another's URL": (request("http://evil.example/v1/models", method="GET"), 200),
    "a path that is no UTF-8": (request("/v1/models/%ff%00%0d%0ax-evil", method="GET"), 404),
    "a way up": (request("/v1/models/../../etc/passwd", method="GET"), 404),
    "a text that is no UTF-8": (request("/v1/evidence?text=%ff%00&k=1", method="GET"), 200),
    "a text that is half a character": (request("/v1/evidence?text=%ED%A0%80&text=x&k=100", method="GET"), 200),
    "a k of 5,000 digits": (request(f"/v1/evidence?text=x&k={'9' * 5000}", method="GET"), 400),
    "a header of a megabyte": (request("/v1/models", b"", f"x: {'a' * 1_000_000}", method="GET"), 431),
    "a path of a megabyte": (request("/v1/models/" + "a" * 1_000_000, method="GET"), 431),
    "a thousand headers": (request("/v1/models", b"", *["x: y"] * 1000, method="GET"), 200),
    "an asterisk": (request("*", method="OPTIONS"), 404),
    "a websocket": (request("/v1/models", b"", "upgrade: websocket", "connection: upgrade", method="GET"), 200),
    "a wrong key": (request(CHAT, body()).replace(MASTER_KEY.encode(), b"\xff\xfe"), 401),
    "two keys": (request(CHAT, body(), "authorization: Bearer other"), 200),
}


@pytest.mark.parametrize(("raw", "status"), ODD_HTTP.values(), ids=ODD_HTTP.keys())
def test_what_is_odd_in_http_is_answered_or_refused_in_the_one_shape(bench: Bench, raw: bytes, status: int) -> None:
    seen = bench.send(raw)
    assert seen.status == status
    assert "evil" not in seen.head
    assert status < 400 or {"message", "type", "param", "code"} <= json.loads(seen.content)["error"].keys()


def test_a_body_announced_as_too_large_is_refused_before_it_comes(bench: Bench) -> None:
    seen = bench.send(request(CHAT, b"", f"content-length: {50 * 1024 * 1024}", length=False))
    assert (seen.status, json.loads(seen.content)["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_body_of_50_mb_is_413_however_it_comes(bench: Bench, path: str) -> None:
    megabyte = b"x" * 0x100000
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(megabyte), megabyte) for _ in range(50))
    chunked = request(path, pieces + b"0\r\n\r\n", "transfer-encoding: chunked", length=False)
    for raw in (request(path, b'{"model": "' + megabyte * 50), chunked):
        seen = bench.send(raw)
        assert (seen.status, json.loads(seen.content)["error"]["code"]) == (413, "body_too_large")


def test_chunks_without_a_length_are_a_body(bench: Bench) -> None:
    content = body()
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in content) + b"0\r\n\r\n"
    assert bench.send(request(CHAT, pieces, "transfer-encoding: chunked", length=False)).status == 200


def test_a_length_that_lies_harms_nobody(bench: Bench) -> None:
    short = request(CHAT, body() + b"GET / HTTP/1.1", f"content-length: {len(body()) - 5}", length=False)
    assert bench.send(short).status == 400  # what is over is read as the next request
    late = bench.send(request(CHAT, body(), f"content-length: {len(body()) + 5}", length=False))
    assert (late.status, json.loads(late.content)["error"]["code"]) == (408, "body_timeout")


OPERATIONS = (
    *(("POST", path) for path in ENDPOINTS),
    *(("GET", path) for path in ("/v1/models", "/v1/models/{name}", "/v1/evidence", "/health/live", "/health/ready")),
)


@pytest.fixture(scope="module")
def document(bench: Bench) -> schemathesis.BaseSchema:
    """The OpenAPI document as it is served."""
    return schemathesis.openapi.from_url(f"{bench.gateway.url}/openapi.json")


def test_every_operation_is_documented(document: schemathesis.BaseSchema) -> None:
    found = {(method.upper(), path) for path, operations in document.items() for method in operations}
    assert found == set(OPERATIONS)


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
# a query with unknown parameters is no mistake, so only bodies are made wrong
DRAWN = [*((*operation, POSITIVE) for operation in OPERATIONS), *(("POST", path, NEGATIVE) for path in ENDPOINTS)]


@pytest.mark.parametrize(("method", "path", "mode"), DRAWN, ids=[f"{m.value} {v} {path}" for v, path, m in DRAWN])
def test_the_document_is_true_of_whatever_is_sent(
    bench: Bench, document: schemathesis.BaseSchema, method: str, path: str, mode: schemathesis.GenerationMode
) -> None:
    """Generated requests that fit the document, and such as do not, get a status, type and shape that it states."""

    @hypothesis.settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=N_DRAWN,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(document[path][method].as_strategy(generation_mode=mode), strategies.booleans())
    def send(case: schemathesis.Case[Any], known: bool) -> None:
        if known and isinstance(case.body, dict) and isinstance(drawn := case.body.get("model"), str) and drawn:
            case.body["model"] = ENDPOINTS[path]["model"]  # a name at random is nobody's
        excluded = [ignored_auth]  # it would send the key that we give
        if isinstance(case.body, dict) and EXTENSION in case.body:
            excluded.append(positive_data_acceptance)  # which candidates there are, no document can say
        answer = case.call_and_validate(base_url=bench.gateway.url, headers=KEY, excluded_checks=excluded)
        bench.check(min(answer.status_code, 499), answer.text)  # the check of the document weighs 5xx

    send()
