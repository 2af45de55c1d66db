"""The fault matrix: a real upstream misbehaves in one way, and a good one stands behind it.

Every cell says what the client saw, who was asked, and what was recorded.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.serving import A_SUM, Gateway, entry, planted_engine, run_gateway, settings
from tests.upstreams import BEHAVIOURS, Upstream, run_upstream

REFUSE = "refuse"
KEY = "sk-upstream-secret"
HASTY = {"first_token_s": 2, "between_chunks_s": 2, "total_s": 5}  # asked for what never comes, or not in time
SILENT = {"hang", "drip", "stream-hangs", "stream-drips"}
SOUND = {"good", "once", "respond", "complete", "response-fails", "chat-only", "no-temperature", "cool", "tools"}
SOUND |= {
    "good-then-dies",
    "no-stream-options",
    "small",
    "small-200",
    "small-stream",
    "escaping",
    "strict",
    "response-opens",
    "response-unended",
    "forgetful",
    "picky",
    "never-streams",
    "alternating",
    "stream-stops",
    "no-developer",
    "stream-uneven",
    "stream-pauses",
    "stream-thinks",
    "late-400",
    "late-500",
    "stream-filtered",
    "stream-typeless",
    "flood",
}  # or tried in other tests
FAULTS = sorted(BEHAVIOURS.keys() - SOUND)


@dataclass
class Bench:
    """Gateways in whose pool every misbehaviour is forecast to be better than the good model; one waits for none."""

    patient: Gateway
    hasty: Gateway
    upstream: Upstream

    def ask(self, behaviour: str, *, stream: bool, candidates: tuple[str, ...] = ("good",)) -> "Seen":
        """Ask for the misbehaving model first; its kinds of request have entries of their own."""
        gateway = self.hasty if behaviour in SILENT else self.patient
        n_asked = len(self.upstream.asked)
        first = f"{behaviour}/{'stream' if stream else 'whole'}"
        body = {
            "model": "auto",
            "messages": [{"role": "user", "content": A_SUM}],
            "stream": stream,
            "embedrouter": {"candidates": [first, *candidates]},
        }
        response = httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=60)
        row = gateway.decision(response.headers["x-request-id"])
        assert KEY not in response.text
        assert KEY not in str(row)
        return Seen(response, self.upstream.behaviours()[n_asked:], row)


@dataclass
class Seen:
    """What one cell showed."""

    response: httpx.Response
    asked: list[str]
    row: dict[str, Any]

    @property
    def text(self) -> str:
        """What the client has of an answer."""
        if not self.response.headers["content-type"].startswith("text/event-stream"):
            return str(self.response.json()["choices"][0]["message"]["content"])
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in self.events if c.get("choices"))

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = [line for line in self.response.text.splitlines() if line.startswith("data: {")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    @property
    def tried(self) -> list[tuple[str, int | None, str | None]]:
        return [(a["model"].split("/")[0], a["status"], a["error"]) for a in self.row["attempts"]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    names = [f"{fault}/{kind}" for fault in [REFUSE, *FAULTS] for kind in ("stream", "whole")]
    forecasts = {**dict.fromkeys(names, (0.9, 0.9)), "good": (0.5, 0.5)}
    with planted_engine(tmp_path_factory.mktemp("faults"), forecasts) as engine, run_upstream() as upstream:
        urls = {name: upstream.url(name.split("/")[0]) for name in names}
        urls |= {f"{REFUSE}/{kind}": "http://127.0.0.1:9/v1" for kind in ("stream", "whole")}
        pool = [entry(name, url, key=KEY) for name, url in {**urls, "good": upstream.url("good")}.items()]
        never_opens = {"n_failures": 10_000}
        patient, hasty = settings(pool, breaker=never_opens), settings(pool, breaker=never_opens, timeouts=HASTY)
        with run_gateway(engine, patient) as waits, run_gateway(engine, hasty) as gives_up:
            yield Bench(waits, gives_up, upstream)


BEFORE_CONTENT = {
    REFUSE: (None, "refused"),
    "reset": (None, "reset"),
    "hang": (None, "first_token_timeout"),
    "garbage": (None, "not_http"),
    "truncated": (None, "reset"),
    "cut-json": (200, "not_json"),
    "not-json": (200, "not_json"),
    "null": (200, "not_json"),
    "null-choices": (200, "no_choices"),
    "no-choices": (200, "no_choices"),
    "empty-choices": (200, "empty"),
    "nothing-chosen": (200, "empty"),
    "error-choice": (200, "error_in_answer"),
    "error-200": (200, "error_in_answer"),
    "not-gzip": (None, "undecodable"),
    "status-401": (401, "http_status"),
    "status-403": (403, "http_status"),
    "status-404": (404, "client_fault"),
    "status-408": (408, "http_status"),
    "status-409": (409, "http_status"),
    "status-429": (429, "http_status"),
    "status-429-bare": (429, "http_status"),
    "status-500": (500, "http_status"),
    "status-503": (503, "http_status"),
}
STREAM_BEFORE_CONTENT = {
    "stream-empty": (200, "empty"),
    "stream-error-first": (200, "error_in_answer"),
    "stream-choice-error": (200, "error_in_answer"),
    "stream-role-only": (None, "reset"),
    "drip": (None, "first_token_timeout"),
}
CELLS = [
    *((fault, stream, *found) for fault, found in BEFORE_CONTENT.items() for stream in (False, True)),
    *((fault, True, *found) for fault, found in STREAM_BEFORE_CONTENT.items()),
]


@pytest.mark.parametrize(("fault", "stream", "status", "error"), CELLS)
def test_before_the_first_content_the_next_candidate_answers(
    bench: Bench, fault: str, stream: bool, status: int | None, error: str
) -> None:
    seen = bench.ask(fault, stream=stream)
    assert seen.response.status_code == 200
    assert seen.text.strip() == "answer of vendor/good"
    # on a kept connection, which may have gone stale meanwhile, the same upstream is asked once more
    n_asked = {REFUSE: (0,), "reset": (1, 2)}.get(fault, (1,))
    assert (seen.asked.count(fault), seen.asked[-1]) in [(n, "good") for n in n_asked]
    assert seen.tried == [(fault, status, error), ("good", 200, None)]
    assert (seen.row["answered_by"], seen.row["status"], seen.row["error"]) == ("good", 200, None)


MID_STREAM = {
    "stream-dies": "reset",
    "stream-cut": "truncated",
    "stream-cut-within": "truncated",
    "stream-hangs": "between_chunks_timeout",
    "stream-drips": "between_chunks_timeout",
    "stream-garbage": "not_json",
    "stream-error-later": "error_in_answer",
    "stream-object-error": "error_in_answer",
    "stream-event-error": "error_in_answer",
    "stream-choice-error-later": "error_in_answer",
}


@pytest.mark.parametrize(("fault", "error"), MID_STREAM.items())
def test_after_the_first_content_the_client_sees_one_error_and_nobody_else_is_asked(
    bench: Bench, fault: str, error: str
) -> None:
    seen = bench.ask(fault, stream=True)
    assert seen.response.status_code == 200
    assert seen.text.startswith("half an ")
    assert [event["error"]["code"] for event in seen.events if "error" in event] == ["upstream_stream_failed"]
    assert "error" in seen.events[-1]
    assert "[DONE]" not in seen.response.text
    assert seen.asked == [fault]
    assert seen.tried == [(fault, 200, error)]
    assert (seen.row["answered_by"], seen.row["error"]) == (f"{fault}/stream", f"stream_{error}")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["status-400", "status-422", "huge-400"])
def test_the_clients_fault_is_the_clients_to_see(bench: Bench, fault: str, stream: bool) -> None:
    seen = bench.ask(fault, stream=stream)
    # a stream is asked for once more without its usage, which may be what an upstream that says nothing else refuses
    n_asked = 2 if stream and fault == "huge-400" else 1
    assert (seen.response.status_code, seen.asked) == (400, [fault] * n_asked)
    assert len(seen.response.content) < 1000
    assert (seen.row["answered_by"], seen.row["error"]) == (None, "client_fault")


def test_a_whole_answer_that_drips_ends_with_the_total_time(bench: Bench) -> None:
    n_left = bench.upstream.n_left
    seen = bench.ask("drip", stream=False)
    assert (seen.response.status_code, seen.response.json()["error"]["code"]) == (504, "upstream_timeout")
    assert seen.tried == [("drip", None, "total_timeout")]
    assert (seen.row["answered_by"], seen.row["status"]) == (None, 504)
    bench.upstream.wait_until_left(n_left + 1)


@pytest.mark.parametrize(
    ("fault", "stream"), [("slow", False), ("slow", True), ("stream-no-done", True), ("stream-no-end", True)]
)
def test_what_is_only_odd_is_an_answer(bench: Bench, fault: str, stream: bool) -> None:
    seen = bench.ask(fault, stream=stream)
    assert seen.asked == [fault]
    assert (seen.row["answered_by"].split("/")[0], seen.row["error"]) == (fault, None)
    assert not stream or seen.response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (REFUSE, 502, "upstream_failed"),
        ("hang", 504, "upstream_timeout"),
        ("status-401", 502, "upstream_failed"),
        ("status-403", 502, "upstream_failed"),
        ("status-429-bare", 429, "upstream_rate_limited"),
        ("status-500", 502, "upstream_failed"),
        ("error-200", 502, "upstream_failed"),
        ("garbage", 502, "upstream_failed"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_where_nobody_answers_the_client_is_told_not_to_ask_again(
    bench: Bench, fault: str, status: int, code: str, stream: bool
) -> None:
    seen = bench.ask(fault, stream=stream, candidates=())
    assert (seen.response.status_code, seen.response.json()["error"]["code"]) == (status, code)
    assert seen.response.headers["x-should-retry"] == "false"
    assert len(seen.tried) == 1
    assert (seen.row["answered_by"], seen.row["status"], seen.row["error"]) == (None, status, code)


def test_no_fault_is_left_out() -> None:
    odd = {"slow", "stream-no-done", "stream-no-end"}
    tried = {*BEFORE_CONTENT, *STREAM_BEFORE_CONTENT, *MID_STREAM, *odd, "status-400", "status-422", "huge-400"}
    elsewhere = {"odd-json", "stream-odd", "endless"}  # what they look like is in the tests of the upstream
    assert tried | elsewhere == {REFUSE, *FAULTS}
