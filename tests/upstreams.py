"""A real upstream on loopback that behaves, or misbehaves in the way that its URL asks for.

`upstream.url("good")` is an OpenAI-compatible base URL; `upstream.url("hang")` one that never answers, and so on for
every coroutine below that is named `_<behaviour>`. It writes bytes to a socket itself, because a web framework would
not send what a broken upstream sends.
"""

import asyncio
import inspect
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.waiting import until

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@dataclass
class Asked:
    """One request that the upstream received."""

    behaviour: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Upstream:
    """What a test sees of the upstream: its URLs, what it was asked, and how many of its hanging calls were left."""

    port: int
    asked: list[Asked] = field(default_factory=list)
    n_left: int = 0

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.port}/{behaviour}/v1"

    def behaviours(self) -> list[str]:
        return [asked.behaviour for asked in self.asked]

    def wait_until_left(self, n_calls: int = 1) -> None:
        """Wait until that many hanging calls were cut by the caller."""
        until(lambda: self.n_left >= n_calls)


@contextmanager
def run_upstream() -> Iterator[Upstream]:
    """Serve from a thread on a free port."""
    started: list[Upstream] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()

    async def serve(stop: asyncio.Event) -> None:
        server = await asyncio.start_server(
            lambda reader, writer: connection(started[0], reader, writer), "127.0.0.1", 0
        )
        started.append(Upstream(server.sockets[0].getsockname()[1]))
        ready.set()
        await stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(stop),), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()


async def connection(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection, request after request."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            request_line, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))
            path = request_line.split()[1]
            behaviour = path.split("/")[1]
            upstream.asked.append(Asked(behaviour, path, headers, body))
            talk = Talk(upstream, headers, body, reader, writer, path)
            await BEHAVIOURS[behaviour](talk)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@dataclass
class Talk:
    """One request and the means to answer it."""

    upstream: Upstream
    headers: dict[str, str]
    body: dict[str, Any]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    path: str

    def refuse(self, status: int, message: str, **more: str | None) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}
        self.send(status, json.dumps({"error": error}).encode())

    def send(self, status: int, content: bytes, kind: str = "application/json", **headers: str) -> None:
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} Status\r\ncontent-type: {kind}\r\n{more}content-length: {len(content)}\r\n\r\n"
        self.writer.write(head.encode() + content)

    def start_stream(self) -> None:
        self.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def piece(self, content: bytes) -> None:
        self.writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        await self.writer.drain()
        await asyncio.sleep(0.002)  # so that pieces travel apart

    async def event(self, **chunk: Any) -> None:
        await self.piece(b"data: " + json.dumps(self.chunk(**chunk)).encode() + b"\n\n")

    def chunk(self, content: str | None = None, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {
            "index": 0,
            "delta": {} if content is None else {"role": "assistant", "content": content},
            "finish_reason": finish_reason,
        }
        envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
        return {**envelope, "model": self.body["model"], "choices": [choice]}

    async def until_left(self) -> None:
        """Wait for the caller to cut the connection."""
        with suppress(ConnectionError):
            await self.reader.read(1)
        self.upstream.n_left += 1
        raise ConnectionResetError

    def reset(self) -> None:
        self.writer.transport.abort()
        raise ConnectionResetError


async def _good(talk: Talk) -> None:
    """Answer as asked; the answer names the model that was asked for."""
    text = f"answer of {talk.body['model']}"
    if talk.path.endswith("/responses"):
        await _respond(talk, text)
        return
    if talk.path.endswith("/embeddings"):
        vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
        usage = {"prompt_tokens": 10, "total_tokens": 10}
        content = {"object": "list", "data": [vector], "model": talk.body["model"], "usage": usage}
        talk.send(200, json.dumps(content).encode())
        return
    if talk.path.endswith("/v1/completions"):
        await _complete(talk, text)
        return
    if talk.body.get("stream"):
        talk.start_stream()
        for word in text.split():
            await talk.event(content=f"{word} ")
        await talk.event(finish_reason="stop")
        options = talk.body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            await talk.piece(b"data: " + json.dumps({**talk.chunk(), "choices": [], "usage": USAGE}).encode() + b"\n\n")
        await talk.piece(b"data: [DONE]\n\n")
        await talk.piece(b"")
        return
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    envelope = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": talk.body["model"]}
    content = {**envelope, "choices": choices, "usage": USAGE, "vendor_extra": {"kept": [1, 2.50, None]}}
    talk.send(200, json.dumps(content).encode(), set_cookie="session=secret")


async def _tools(talk: Talk) -> None:
    """Call the first tool that is offered, and answer once its result is there."""
    if not talk.body.get("tools") or "call_1" in json.dumps([talk.body.get("messages"), talk.body.get("input")]):
        await _good(talk)
        return
    (offered,) = talk.body["tools"]
    name, arguments = offered.get("function", offered)["name"], '{"a": 2, "b": 3}'
    if talk.path.endswith("/responses"):
        await _respond(talk, "", called=name, arguments=arguments)
        return
    function = {"name": name, "arguments": arguments}
    call = {"id": "call_1", "type": "function", "function": function}
    envelope = {"id": "chatcmpl-1", "created": 1, "model": talk.body["model"]}
    if not talk.body.get("stream"):
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choices = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
        whole = {**envelope, "object": "chat.completion", "choices": choices, "usage": USAGE}
        talk.send(200, json.dumps(whole).encode())
        return
    talk.start_stream()
    pieces: list[dict[str, Any]] = [{**call, "function": {"name": name, "arguments": ""}}]
    pieces += [{"function": {"arguments": part}} for part in (arguments[:7], arguments[7:])]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    deltas += [{"tool_calls": [{"index": 0, **piece}]} for piece in pieces]
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        chunk = {**envelope, "object": "chat.completion.chunk", "choices": [choice]}
        await talk.piece(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    await talk.event(finish_reason="tool_calls")
    await talk.piece(b"data: [DONE]\n\n")
    await talk.piece(b"")


async def _complete(talk: Talk, text: str) -> None:
    """Answer a bare prompt."""
    envelope = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": talk.body["model"]}
    if not talk.body.get("stream"):
        choices = [{"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}]
        talk.send(200, json.dumps({**envelope, "choices": choices, "usage": USAGE}).encode())
        return
    talk.start_stream()
    for index, word in enumerate(words := text.split()):
        choice = {"index": 0, "text": f"{word} ", "finish_reason": "stop" if index == len(words) - 1 else None}
        await talk.piece(b"data: " + json.dumps({**envelope, "choices": [choice]}).encode() + b"\n\n")
    await talk.piece(b"data: [DONE]\n\n")
    await talk.piece(b"")


async def _respond(
    talk: Talk, text: str, *, fails: bool = False, dies: bool = False, called: str = "", arguments: str = ""
) -> None:
    """Answer on the Responses endpoint, as one object or as typed events: with a text, or with a call of a tool."""
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    envelope = {"id": "resp_1", "object": "response", "created_at": 1, "model": talk.body["model"], "error": None}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": called, "status": "completed"}
    output = [{**call, "arguments": arguments}] if called else [message]
    whole = {**envelope, "status": "completed", "output": output, "usage": usage, "tools": []}
    if not talk.body.get("stream"):
        talk.send(200, json.dumps(whole).encode())
        return
    number = 0

    async def event(kind: str, **more: object) -> None:
        nonlocal number
        data = json.dumps({"type": kind, "sequence_number": number, **more})
        number += 1
        await talk.piece(f"event: {kind}\ndata: {data}\n\n".encode())

    talk.start_stream()
    opening = {**envelope, "status": "in_progress", "output": [], "usage": None, "tools": []}
    await event("response.created", response=opening)
    await event("response.in_progress", response=opening)
    if fails:
        error = {"code": "server_error", "message": "overloaded"}
        await event("response.failed", response={**opening, "status": "failed", "error": error})
        await talk.piece(b"")
        return
    if called:
        here = {"item_id": "fc_1", "output_index": 0}
        await event("response.output_item.added", output_index=0, item={**call, "arguments": ""})
        await event("response.function_call_arguments.delta", **here, delta=arguments)
        await event("response.function_call_arguments.done", **here, arguments=arguments)
        await event("response.output_item.done", output_index=0, item=output[0])
        await event("response.completed", response=whole)
        await talk.piece(b"")
        return
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    await event("response.output_item.added", output_index=0, item={**message, "content": []})
    for word in text.split():
        await event("response.output_text.delta", **place, delta=f"{word} ", logprobs=[])
    if dies:
        talk.reset()
    await event("response.output_text.done", **place, text=text, logprobs=[])
    await event("response.completed", response=whole)
    await talk.piece(b"")


async def _response_fails(talk: Talk) -> None:
    await _respond(talk, "", fails=True)


async def typed_event(talk: Talk, kind: str, **more: object) -> None:
    await talk.piece(f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode())


async def _response_opens(talk: Talk) -> None:
    """Announce a response and an item of it, say that one is still there, and break off before its first word."""
    talk.start_stream()
    await typed_event(talk, "response.created", response={"id": "resp_1", "model": "m", "error": None})
    await typed_event(talk, "response.output_item.added", output_index=0, item={"type": "reasoning", "id": "rs_1"})
    await typed_event(talk, "keepalive")
    talk.reset()


async def _response_unended(talk: Talk) -> None:
    """End as chats do, without the event that ends a response."""
    talk.start_stream()
    await typed_event(talk, "response.output_text.delta", delta="half an ")
    await talk.piece(b"data: [DONE]\n\n")
    await talk.piece(b"")


async def _forgetful(talk: Talk) -> None:
    """Know nothing of an item that another upstream made."""
    if "rs_1" in json.dumps(talk.body):
        talk.refuse(404, "Item with id 'rs_1' not found.", param="input", code=None)
    else:
        await _good(talk)


async def _picky(talk: Talk) -> None:
    """Refuse what it does not know without a word of what that is."""
    if "stream_options" in talk.body:
        talk.refuse(400, "invalid request body")
    else:
        await _good(talk)


async def _alternating(talk: Talk) -> None:
    """Say what is wrong, and then that there is no more to be had."""
    if "stream_options" in talk.body:
        talk.refuse(400, "roles must alternate")
    else:
        await status(429, retry_after="60")(talk)


async def _never_streams(talk: Talk) -> None:
    talk.body.pop("stream", None)
    await _good(talk)


async def _stream_stops(talk: Talk) -> None:
    """Say with each piece that it is the last."""
    talk.start_stream()
    await talk.event(content="not ", finish_reason="stop")
    await asyncio.sleep(0.5)
    await talk.event(content="yet", finish_reason="stop")
    await talk.piece(b"data: [DONE]\n\n")
    await talk.piece(b"")


async def _stream_choice_error(talk: Talk) -> None:
    """Fail in a choice, before its first word."""
    talk.start_stream()
    choice = {"index": 0, "delta": {}, "finish_reason": "error", "error": {"message": "overloaded"}}
    await talk.piece(b"data: " + json.dumps({**talk.chunk(), "choices": [choice]}).encode() + b"\n\n")
    await talk.piece(b"data: [DONE]\n\n")
    await talk.piece(b"")


def breaking(last_words: bytes) -> Callable[[Talk], Awaitable[None]]:
    """Begin an answer, say of its failure what a vendor's own way is, and end as if nothing were."""

    async def send(talk: Talk) -> None:
        talk.start_stream()
        await talk.event(content="half an ")
        await talk.piece(last_words + b"\n\ndata: [DONE]\n\n")
        await talk.piece(b"")

    return send


async def _stream_typeless(talk: Talk) -> None:
    """Send typed events whose type is none."""
    talk.start_stream()
    await talk.piece(b'data: {"type": ["x"]}\n\n')
    await talk.piece(b"")


async def _chat_only(talk: Talk) -> None:
    """Know no other endpoint than chat."""
    if talk.path.endswith("/chat/completions"):
        await _good(talk)
    else:
        talk.refuse(404, f"no such path: {talk.path}")


async def _no_temperature(talk: Talk) -> None:
    """Refuse a parameter, as reasoning models do."""
    if "temperature" in talk.body:
        message = "Unsupported parameter: 'temperature' is not supported with this model."
        talk.refuse(400, message, param="temperature", code="unsupported_parameter")
    else:
        await _good(talk)


async def _cool(talk: Talk) -> None:
    """Refuse some values of a parameter."""
    if talk.body.get("temperature", 0) > 1:
        talk.refuse(400, "temperature must be at most 1", param="temperature", code="invalid_value")
    else:
        await _good(talk)


async def _no_developer(talk: Talk) -> None:
    """Know no role but the oldest, and say so as OpenAI does."""
    messages = talk.body["messages"]
    place = next((place for place, message in enumerate(messages) if message["role"] == "developer"), None)
    if place is None:
        await _good(talk)
        return
    message = "Invalid value: 'developer'. Supported values are: 'system', 'assistant', 'user' and 'tool'."
    talk.refuse(400, message, param=f"messages[{place}].role", code="invalid_value")


async def _no_stream_options(talk: Talk) -> None:
    if "stream_options" in talk.body:
        talk.refuse(400, "Unrecognized request argument supplied: stream_options")
    else:
        await _good(talk)


async def _small(talk: Talk) -> None:
    """Have less context than was believed."""
    message = "This model's maximum context length is 10 tokens. However, your messages resulted in 11 tokens."
    talk.refuse(400, message, param="messages", code="context_length_exceeded")


async def _small_200(talk: Talk) -> None:
    """Say the same under a status that says the contrary."""
    talk.send(200, b'{"error": {"message": "prompt is too long: 11 tokens > 10 maximum"}}')


async def _small_stream(talk: Talk) -> None:
    """Say the same in a stream."""
    talk.start_stream()
    await talk.piece(b'data: {"error": {"message": "prompt is too long: 11 tokens > 10 maximum"}}\n\n')
    await talk.piece(b"")


async def _escaping(talk: Talk) -> None:
    """Repeat the key in a refusal, escaped as some writers of JSON do."""
    key = talk.headers["authorization"].removeprefix("Bearer ").replace("/", "\\/")
    talk.send(400, b'{"error": {"message": "no such key: %s", "code": "x"}}' % key.encode())


async def _strict(talk: Talk) -> None:
    """Take no limit of the output, under its newer name."""
    if "max_completion_tokens" in talk.body:
        talk.refuse(400, "Unsupported parameter: 'max_completion_tokens'", param="max_completion_tokens")
    else:
        await _good(talk)


async def _stream_uneven(talk: Talk) -> None:
    """Change what should be constant, count usage as it goes, and call a tool in pieces."""
    talk.start_stream()
    pieces: list[dict[str, Any]] = [
        {"role": "assistant", "content": None},
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}], "vendor_extra": [1]},
    ]
    for number, delta in enumerate(pieces):
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        odd = {"id": f"chatcmpl-{number}", "created": number + 1, "usage": {**USAGE, "completion_tokens": number}}
        await talk.piece(b"data: " + json.dumps({**talk.chunk(), **odd, "choices": [choice]}).encode() + b"\n\n")
    last = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    await talk.piece(b"data: " + json.dumps({**talk.chunk(), "choices": [last], "usage": USAGE}).encode() + b"\n\n")
    await talk.piece(b"data: [DONE]\n\n")
    await talk.piece(b"")


async def _stream_pauses(talk: Talk) -> None:
    """Think in the middle of an answer."""
    talk.start_stream()
    await talk.event(content="let me ")
    await asyncio.sleep(0.5)
    await talk.event(content="think", finish_reason="stop")
    await talk.piece(b"data: [DONE]\n\n")
    await talk.piece(b"")


async def _stream_thinks(talk: Talk) -> None:
    """Think before anything is said, its headers included."""
    await asyncio.sleep(0.5)
    await _good(talk)


def huge(code: int) -> Callable[[Talk], Awaitable[None]]:
    """Refuse, and go on about it for megabytes."""

    async def refuse(talk: Talk) -> None:
        talk.send(code, json.dumps({"error": {"message": "unsupported " * 100_000}}).encode())

    return refuse


def late(code: int) -> Callable[[Talk], Awaitable[None]]:
    """Think, and then refuse."""

    async def refuse(talk: Talk) -> None:
        await asyncio.sleep(0.5)
        await status(code)(talk)

    return refuse


async def _flood(talk: Talk) -> None:
    """Say more than anyone takes, without an end."""
    talk.start_stream()
    try:
        while True:
            await talk.event(content="more " * 10_000)
    finally:
        talk.upstream.n_left += 1


async def _slow(talk: Talk) -> None:
    await asyncio.sleep(0.3)
    await _good(talk)


async def _good_then_dies(talk: Talk) -> None:
    """Answer the first request of a connection; work on the second for a while, and break down over it."""
    if talk.upstream.behaviours().count("good-then-dies") % 2:
        await _good(talk)
        return
    await asyncio.sleep(0.4)
    talk.reset()


async def _once(talk: Talk) -> None:
    """Answer, then close the connection that the caller believes to be kept."""
    await _good(talk)
    await talk.writer.drain()
    await asyncio.sleep(0.05)
    talk.reset()


def status(code: int, **headers: str) -> Callable[[Talk], Awaitable[None]]:
    """Refuse with a status, and spill the caller's key in the message as careless upstreams do."""

    async def refuse(talk: Talk) -> None:
        message = f"refused with {code}, your key was {talk.headers.get('authorization')}"
        error = {"message": message, "type": "vendor_error", "param": None, "code": f"vendor_{code}"}
        talk.send(code, json.dumps({"error": error}).encode(), **headers)

    return refuse


def answer(content: bytes, kind: str = "application/json") -> Callable[[Talk], Awaitable[None]]:
    """Answer 200 with given bytes."""

    async def send(talk: Talk) -> None:
        talk.send(200, content, kind)

    return send


async def _reset(talk: Talk) -> None:
    talk.reset()


async def _hang(talk: Talk) -> None:
    await talk.until_left()


async def _truncated(talk: Talk) -> None:
    """Promise more bytes than come."""
    talk.writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id": "cha')
    await talk.writer.drain()
    talk.writer.close()
    raise ConnectionResetError


async def _drip(talk: Talk) -> None:
    """Send an answer so slowly that it never ends."""
    kind = "text/event-stream" if talk.body.get("stream") else "application/json"
    talk.writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 100000\r\n\r\n".encode())
    with suppress(ConnectionError):
        while True:
            talk.writer.write(b" ")
            await talk.writer.drain()
            await asyncio.sleep(0.05)
    talk.upstream.n_left += 1
    raise ConnectionResetError


async def _garbage(talk: Talk) -> None:
    """Speak no HTTP."""
    talk.writer.write(bytes(range(128, 256)) * 8 + b"\r\n\r\n")
    await talk.writer.drain()
    talk.writer.close()
    raise ConnectionResetError


async def _not_gzip(talk: Talk) -> None:
    """Claim an encoding that the bytes do not have."""
    kind = "text/event-stream" if talk.body.get("stream") else "application/json"
    talk.send(200, b'{"choices": [], "x": "plain bytes, whatever the header says"}', kind, content_encoding="gzip")


async def _endless(talk: Talk) -> None:
    talk.writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"choices": [], "x": "')
    while True:
        talk.writer.write(bytes(100_000))
        await talk.writer.drain()


async def _stream_dies(talk: Talk) -> None:
    if talk.path.endswith("/responses"):
        await _respond(talk, "half an ans", dies=True)
    talk.start_stream()
    await talk.event(content="half an ")
    await talk.event(content="ans")
    talk.reset()


async def _stream_cut(talk: Talk) -> None:
    """End cleanly, but without a finish reason or [DONE]."""
    talk.start_stream()
    await talk.event(content="half an ans")
    await talk.piece(b"")


async def _stream_cut_within(talk: Talk) -> None:
    """End cleanly, in the middle of an event."""
    talk.start_stream()
    await talk.event(content="half an ")
    await talk.piece(b'data: {"id": "chatcmpl-1", "choi')
    await talk.piece(b"")


async def _stream_role_only(talk: Talk) -> None:
    """Announce an answer, and break off before its first word."""
    talk.start_stream()
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    await talk.piece(b"data: " + json.dumps({**talk.chunk(), "choices": [choice]}).encode() + b"\n\n")
    talk.reset()


async def _stream_drips(talk: Talk) -> None:
    """Begin, then send an event that never ends."""
    talk.start_stream()
    await talk.event(content="half an ")
    with suppress(ConnectionError):
        while True:
            await talk.piece(b"d")
            await asyncio.sleep(0.05)
    talk.upstream.n_left += 1
    raise ConnectionResetError


async def _stream_hangs(talk: Talk) -> None:
    talk.start_stream()
    await talk.event(content="half an ")
    await talk.until_left()


async def _stream_garbage(talk: Talk) -> None:
    talk.start_stream()
    await talk.event(content="half an ")
    await talk.piece(b"data: \xff\xfe not JSON\n\n")
    await talk.until_left()


async def _stream_empty(talk: Talk) -> None:
    talk.start_stream()
    await talk.piece(b"data: [DONE]\n\n")
    await talk.piece(b"")


async def _stream_error_first(talk: Talk) -> None:
    talk.start_stream()
    await talk.piece(b'data: {"error": {"message": "overloaded"}}\n\n')
    await talk.piece(b"")


async def _stream_error_later(talk: Talk) -> None:
    talk.start_stream()
    await talk.event(content="half an ")
    message = f"overloaded, key {talk.headers.get('authorization')}"
    await talk.piece(b"data: " + json.dumps({"error": {"message": message}}).encode() + b"\n\n")
    await talk.piece(b"")


async def _stream_no_done(talk: Talk) -> None:
    """Leave [DONE] out, after a finish reason."""
    talk.start_stream()
    await talk.event(content="whole")
    await talk.event(finish_reason="stop")
    await talk.piece(b"")


async def _stream_no_end(talk: Talk) -> None:
    """Fall silent after a finish reason."""
    talk.start_stream()
    await talk.event(content="whole")
    await talk.event(finish_reason="stop")
    await talk.until_left()


async def _stream_filtered(talk: Talk) -> None:
    """Say what a filter thinks of the prompt before anything else, as Azure does: without an id or a time."""
    talk.start_stream()
    opening = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{}]}
    await talk.piece(b"data: " + json.dumps(opening).encode() + b"\n\n")
    await talk.event(content="fine")
    await talk.event(finish_reason="stop")
    await talk.piece(b"data: [DONE]\n\n")
    await talk.piece(b"")


async def _stream_odd(talk: Talk) -> None:
    """Legal but odd: a byte order mark, comments, CRLF and CR, an event over two lines, a character cut in half."""
    text = "naïve 中文"
    whole = json.dumps(talk.chunk(content=text), ensure_ascii=False).encode()
    cut = whole.index("中".encode()) + 1
    talk.start_stream()
    await talk.piece(b"\xef\xbb\xbf: keep-alive\r\n\r")
    await talk.piece(b"\nevent: chunk\r\ndata: " + whole[:cut])
    await talk.piece(whole[cut:] + b"\r")
    await talk.piece(b"\n\r\n: keep-alive\n\n")
    await talk.piece(b'data: {"id": "x",\rdata: "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\r\r')
    await talk.piece(b'data: {"id": "x", "usage": {"prompt_tokens": 10, "completion_tokens": 5}}\n\n')
    await talk.piece(b"data:[DONE] \n\n")
    await talk.piece(b"")


BEHAVIOURS: dict[str, Callable[[Talk], Awaitable[None]]] = {
    **{
        name.removeprefix("_").replace("_", "-"): value
        for name, value in globals().items()
        if name.startswith("_") and inspect.iscoroutinefunction(value)
    },
    **{f"status-{code}": status(code) for code in (400, 401, 403, 404, 408, 409, 422, 500, 503)},
    "huge-400": huge(400),
    "stream-object-error": breaking(b'data: {"object": "error", "message": "CUDA out of memory", "code": 500}'),
    "stream-event-error": breaking(b'event: error\ndata: {"detail": "boom"}'),
    "stream-choice-error-later": breaking(b'data: {"choices": [{"index": 0, "finish_reason": "error"}]}'),
    "late-400": late(400),
    "late-500": late(500),
    "status-429": status(429, retry_after="7"),
    "status-429-bare": status(429),
    "cut-json": answer(b'{"id": "chatcmpl-1", "choices": [{"index": 0, "mess'),
    "empty-choices": answer(b'{"id": "chatcmpl-1", "choices": []}'),
    "nothing-chosen": answer(b'{"choices": [{"index": 0, "message": null, "finish_reason": null}]}'),
    "error-choice": answer(
        b'{"choices": [{"index": 0, "finish_reason": "error", "error": {"message": "overloaded"}}]}'
    ),
    "null-choices": answer(b'{"id": "chatcmpl-1", "choices": null}'),
    "not-json": answer(b"<html>busy</html>", "text/html"),
    "null": answer(b"null"),
    "error-200": answer(b'{"error": {"message": "overloaded"}}'),
    "no-choices": answer(b'{"detail": "not found"}'),
    # what servers of models have been seen to send: half of a surrogate pair, NaN, and counts that cannot be
    "odd-json": answer(
        rb'{"choices": [{"index": 0, "message": {"content": "\ud83d"}, "logprob": NaN, "finish_reason": "stop"}],'
        rb' "usage": {"prompt_tokens": 9223372036854775808, "completion_tokens": -1}}'
    ),
}
