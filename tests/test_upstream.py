"""Asking one upstream: each way to fail has its code, and the answer comes through as it was."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.chunks import n_choices
from router.endpoints import CHAT
from router.errors import UpstreamError
from router.pool import Upstream
from router.reply import Reply, read_reply, retry_after_s
from router.settings import Timeouts
from router.sse import EventParser, EventTooLongError
from router.upstream import ReplyStream, Upstreams
from tests import upstreams
from tests.upstreams import run_upstream
from tests.waiting import eventually

KEY = "sk-upstream-secret"
PATIENT = Timeouts(connect_s=60, first_token_s=60, between_chunks_s=60, total_s=60)
QUICK = Timeouts(connect_s=60, first_token_s=0.3, between_chunks_s=0.3, total_s=60)  # for what never comes


@pytest.fixture(scope="module")
def server() -> Iterator[upstreams.Upstream]:
    with run_upstream() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[Upstreams]:
    async with Upstreams(PATIENT) as running:
        yield running


@pytest.fixture
async def hasty() -> AsyncIterator[Upstreams]:
    async with Upstreams(QUICK) as running:
        yield running


def body(*, stream: bool = False) -> bytes:
    return json.dumps({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}).encode()


async def failure(client: Upstreams, url: str, *, stream: bool) -> UpstreamError:
    send = client.stream if stream else client.complete
    with pytest.raises(UpstreamError) as raised:
        await send(Upstream(url, "m", KEY), CHAT, body(stream=stream), client.deadline())
    assert KEY not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "code", "status"),
    [
        ("status-401", "http_status", 401),
        ("status-408", "http_status", 408),
        ("status-429", "http_status", 429),
        ("status-500", "http_status", 500),
        ("reset", "reset", None),
        ("not-json", "not_json", 200),
        ("null", "not_json", 200),
        ("error-200", "error_in_answer", 200),
        ("no-choices", "no_choices", 200),
        ("truncated", "reset", None),
    ],
)
async def test_a_failure_before_the_answer_has_its_code(
    client: Upstreams, server: upstreams.Upstream, behaviour: str, code: str, status: int | None, stream: bool
) -> None:
    error = await failure(client, server.url(behaviour), stream=stream)
    assert (error.code, error.status) == (code, status)
    assert error.retry_after_s == (7.0 if behaviour == "status-429" else None)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_never_answers_is_given_up(hasty: Upstreams, server: upstreams.Upstream, stream: bool) -> None:
    error = await failure(hasty, server.url("hang"), stream=stream)
    assert (error.code, error.status) == ("first_token_timeout", None)


@pytest.mark.parametrize(("behaviour", "code"), [("stream-empty", "empty"), ("stream-error-first", "error_in_answer")])
async def test_a_stream_that_fails_before_its_first_chunk_has_its_code(
    client: Upstreams, server: upstreams.Upstream, behaviour: str, code: str
) -> None:
    assert (await failure(client, server.url(behaviour), stream=True)).code == code


@pytest.mark.parametrize("stream", [False, True])
async def test_where_nothing_listens_the_code_is_refused(client: Upstreams, stream: bool) -> None:
    assert (await failure(client, "http://127.0.0.1:9/v1", stream=stream)).code == "refused"
    assert (await failure(client, "http://no-such-host.invalid/v1", stream=stream)).code == "refused"


async def test_where_no_connection_comes_about_the_code_is_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(3)]  # its queue is full: who asks next gets no answer
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            async with Upstreams(Timeouts(connect_s=0.3, first_token_s=30, total_s=60)) as client:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
                assert (await failure(client, url, stream=False)).code == "connect_timeout"
        finally:
            for filler in fillers:
                filler.close()


async def test_a_query_of_the_base_url_stays_behind_the_path(client: Upstreams, server: upstreams.Upstream) -> None:
    url = f"{server.url('good')}?api-version=1"
    await client.complete(Upstream(url, "m"), CHAT, body(), client.deadline())
    assert server.asked[-1].path == "/good/v1/chat/completions?api-version=1"


async def test_no_failure_repeats_the_query_of_the_base_url(client: Upstreams, server: upstreams.Upstream) -> None:
    for behaviour in ("garbage", "not-gzip", "reset"):
        found = await failure(client, f"{server.url(behaviour)}?api-key=secret-in-a-query", stream=False)
        assert "secret-in-a-query" not in str(found)


@pytest.mark.parametrize("query", ["api-key=abcdef/gh", "v=1&api-key=abcdef%2Fgh"])
@pytest.mark.parametrize("said", ["no http://h/v1?{0}", "no such key: abcdef/gh", "abcdef%2Fgh"])
def test_a_key_in_the_url_is_found_in_a_refusal(query: str, said: str) -> None:
    upstream = Upstream(f"http://h/v1?{query}", "m")
    for error in ({"message": said.format(query)}, {"message": "no", "request": {"url": said.format(query)}}, said):
        content = json.dumps({"error": error}).encode()
        reply = read_reply(400, {}, content.replace(b"{0}", query.encode()), upstream, CHAT)
        assert "abcdef" not in json.dumps(reply.body)
        assert "***" in json.dumps(reply.body)


async def test_a_key_is_found_however_an_upstream_escapes_it(client: Upstreams, server: upstreams.Upstream) -> None:
    reply = await client.complete(Upstream(server.url("escaping"), "m", "abc/def"), CHAT, body(), client.deadline())
    assert isinstance(reply, Reply)
    whole = {"type": "invalid_request_error", "param": None, "code": "x", "message": "no such key: ***"}
    assert reply.body == {"error": whole}


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "86400"}, 86_400.0),
        ({"retry-after": "9" * 400}, 86_400.0),
        ({"retry-after": "Wed, 21 Oct 2999 07:28:00 GMT"}, 86_400.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1_000"}, None),
        ({"retry-after": "9", "retry-after-ms": "-1"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 +99999999999999999999"}, None),
        ({"retry-after": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_a_wait_is_read_in_each_of_its_forms(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after_s(headers) == wait_s


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 422])
async def test_the_clients_fault_comes_back_as_it_was_without_the_key(
    client: Upstreams, server: upstreams.Upstream, status: int, stream: bool
) -> None:
    send = client.stream if stream else client.complete
    reply = await send(Upstream(server.url(f"status-{status}"), "m", KEY), CHAT, body(stream=stream), client.deadline())
    assert isinstance(reply, Reply)
    assert reply.status == (404 if status == 404 else 400)  # as OpenAI's endpoints say it
    error = reply.body["error"]
    assert isinstance(error, dict)
    assert error["code"] == f"vendor_{status}"
    assert error["message"] == f"refused with {status}, your key was Bearer ***"


async def test_only_our_own_headers_reach_the_upstream(client: Upstreams, server: upstreams.Upstream) -> None:
    for _ in range(2):  # the first answer sets a cookie
        await client.complete(Upstream(server.url("good"), "m", KEY), CHAT, body(), client.deadline())
    headers = server.asked[-1].headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["accept-encoding"] == "identity"
    assert "cookie" not in headers


async def test_a_connection_that_went_stale_is_replaced(
    client: Upstreams, server: upstreams.Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.upstream.STALE_S", 60.0)
    for _ in range(3):
        reply = await client.complete(Upstream(server.url("once"), "m"), CHAT, body(), client.deadline())
        assert reply.status == 200
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_an_upstream_worked_on_is_never_sent_to_it_twice(
    server: upstreams.Upstream, stream: bool
) -> None:
    n_asked = len(server.asked)
    upstream = Upstream(server.url("good-then-dies"), "m")
    async with Upstreams(PATIENT) as client:
        await client.complete(upstream, CHAT, body(), client.deadline())  # the connection is kept
        send = client.stream if stream else client.complete
        with pytest.raises(UpstreamError) as raised:
            await send(upstream, CHAT, body(stream=stream), client.deadline())
    assert (raised.value.code, len(server.asked) - n_asked) == ("reset", 2)


@pytest.mark.parametrize("behaviour", ["reset", "truncated", "garbage"])
async def test_on_a_new_connection_a_request_is_sent_once(server: upstreams.Upstream, behaviour: str) -> None:
    n_asked = len(server.asked)
    async with Upstreams(PATIENT) as client:
        await failure(client, server.url(behaviour), stream=False)
    assert server.behaviours()[n_asked:] == [behaviour]


async def chunks_of(client: Upstreams, url: str) -> list[dict[str, object] | None]:
    stream = await client.stream(Upstream(url, "m", KEY), CHAT, body(stream=True), client.deadline())
    assert isinstance(stream, ReplyStream)
    try:
        return [chunk async for chunk in stream]
    finally:
        await stream.aclose()


def content(chunk: dict[str, object] | None) -> str:
    delta = (chunk or {})["choices"][0]["delta"]  # type: ignore[index]
    return str(delta.get("content", ""))


async def test_a_stream_comes_chunk_by_chunk(client: Upstreams, server: upstreams.Upstream) -> None:
    chunks = await chunks_of(client, server.url("good"))
    assert [content(chunk) for chunk in chunks] == ["answer ", "of ", "m ", ""]


async def test_odd_but_legal_events_are_understood(client: Upstreams, server: upstreams.Upstream) -> None:
    first, comment, last, _ = await chunks_of(client, server.url("stream-odd"))
    assert content(first) == "naïve 中文"
    assert comment is None
    assert last is not None
    assert last["id"] == "x"


async def test_a_finish_reason_without_done_is_an_end(client: Upstreams, server: upstreams.Upstream) -> None:
    assert len(await chunks_of(client, server.url("stream-no-done"))) == 2


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ("stream-dies", "reset"),
        ("stream-cut", "truncated"),
        ("stream-garbage", "not_json"),
        ("stream-error-later", "error_in_answer"),
    ],
)
async def test_a_stream_that_breaks_off_raises_after_what_it_gave(
    client: Upstreams, server: upstreams.Upstream, behaviour: str, code: str
) -> None:
    stream = await client.stream(Upstream(server.url(behaviour), "m", KEY), CHAT, body(stream=True), client.deadline())
    assert isinstance(stream, ReplyStream)
    assert content(await anext(stream)).startswith("half an ")
    with pytest.raises(UpstreamError) as raised:
        [chunk async for chunk in stream]
    assert raised.value.code == code
    assert KEY not in str(raised.value)


async def test_a_stream_that_falls_silent_is_given_up(server: upstreams.Upstream) -> None:
    async with Upstreams(Timeouts(connect_s=60, first_token_s=60, between_chunks_s=0.3, total_s=60)) as client:
        with pytest.raises(UpstreamError) as raised:
            await chunks_of(client, server.url("stream-hangs"))
    assert raised.value.code == "between_chunks_timeout"


def event(index: int = 0, text: str = "", finish: str | None = None) -> bytes:
    choice = {"index": index, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return piece(b"data: " + json.dumps({"id": "x", "choices": [choice]}).encode() + b"\n\n")


def piece(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


END = piece(b"")
Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script, n_choices: int = 1) -> AsyncIterator[ReplyStream]:
    """A stream of an upstream in this very event loop, which sends what the script writes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(body(stream=True)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            await script(writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, Upstreams(PATIENT) as client:
        upstream = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "m")
        stream = await client.stream(upstream, CHAT, body(stream=True), client.deadline())
        assert isinstance(stream, ReplyStream)
        stream.n_choices = n_choices
        try:
            yield stream
        finally:
            await stream.aclose()


async def test_a_reset_after_the_end_of_an_answer_is_no_failure() -> None:
    seen = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(event(text="whole") + event(finish="stop"))
        await seen.wait()
        writer.transport.abort()

    async with scripted(script) as stream:
        await anext(stream)
        await anext(stream)
        seen.set()
        assert [chunk async for chunk in stream] == []


async def test_a_silence_after_the_end_of_an_answer_is_soon_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.upstream.CLOSING_S", 0.1)

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(event(text="whole") + event(finish="stop"))
        while True:
            writer.write(piece(b": still here\n\n"))
            await asyncio.sleep(0.02)

    async with scripted(script) as stream, asyncio.timeout(30):
        assert len([chunk async for chunk in stream]) == 2


async def test_a_choice_that_is_still_to_come_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.upstream.CLOSING_S", 0.05)

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(event(0, "one") + event(0, finish="stop"))
        await asyncio.sleep(0.3)
        writer.write(event(1, "two") + event(1, finish="stop") + END)

    async with scripted(script, n_choices=2) as stream:
        assert len([chunk async for chunk in stream]) == 4


@pytest.mark.parametrize("last", [event(1, "half"), event(0, finish="stop")], ids=["half", "the other again"])
async def test_a_choice_that_began_and_did_not_finish_is_a_truncated_answer(last: bytes) -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(event(0, "one") + event(1, "two") + event(0, finish="stop") + last + END)

    async with scripted(script, n_choices=2) as stream:
        with pytest.raises(UpstreamError) as raised:
            [chunk async for chunk in stream]
    assert raised.value.code == "truncated"


@pytest.mark.parametrize(
    ("asked", "n"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": None, "prompt": "a"}, 1),
        ({"n": 2, "prompt": ["a", "b"]}, 4),
        ({"prompt": [[1], [2]]}, 2),
        ({"prompt": [1, 2, 3]}, 1),
        ({"n": -1}, 1),
        ({"n": "two", "prompt": []}, 1),
    ],
)
def test_a_request_says_how_many_choices_it_is_to_get(asked: dict[str, object], n: int) -> None:
    assert n_choices(asked) == n


async def test_the_total_time_holds_for_all_phases(server: upstreams.Upstream) -> None:
    timeouts = Timeouts(connect_s=60, first_token_s=60, between_chunks_s=60, total_s=0.2)
    async with Upstreams(timeouts) as client:
        assert (await failure(client, server.url("hang"), stream=False)).code == "total_timeout"
        with pytest.raises(UpstreamError) as raised:
            await chunks_of(client, server.url("stream-hangs"))
    assert raised.value.code == "total_timeout"


async def test_leaving_early_ends_the_call(client: Upstreams, server: upstreams.Upstream) -> None:
    before = server.n_left
    n_asked = len(server.asked)
    asking = asyncio.create_task(client.complete(Upstream(server.url("hang"), "m"), CHAT, body(), client.deadline()))
    await eventually(lambda: len(server.asked) > n_asked)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    stream = await client.stream(Upstream(server.url("stream-hangs"), "m"), CHAT, body(stream=True), client.deadline())
    assert isinstance(stream, ReplyStream)
    await anext(stream)
    await stream.aclose()
    await asyncio.to_thread(server.wait_until_left, before + 2)


line_ends = st.sampled_from(["\n", "\r", "\r\n"])
texts = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(st.tuples(texts, line_ends), min_size=1, max_size=5), st.data())
def test_however_a_stream_is_cut_its_events_are_the_same(events: list[tuple[str, str]], data: st.DataObject) -> None:
    stream = b"".join(f"data: {text}{end}{end}".encode() for text, end in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = EventParser()
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    found = [event.data for piece in pieces for event in parser.feed(piece)] + [event.data for event in parser.end()]
    assert found == [text.encode() for text, _ in events]


def test_an_event_without_an_end_is_refused_once_it_is_too_long() -> None:
    parser = EventParser(max_event_bytes=10)
    with pytest.raises(EventTooLongError):
        parser.feed(b"data: 123456")


def test_a_long_event_in_many_pieces_is_searched_once() -> None:
    parser = EventParser()
    started = time.process_time()
    for _ in range(200):
        assert parser.feed(b"x" * 64_000) == []
    assert time.process_time() - started < 1  # searched from its start each time, it would take 100 times as long


async def test_an_answer_without_an_end_is_given_up(
    client: Upstreams, server: upstreams.Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.upstream.MAX_REPLY_BYTES", 300_000)
    assert (await failure(client, server.url("endless"), stream=False)).code == "too_long"
    assert (await failure(client, server.url("endless"), stream=True)).code == "too_long"
