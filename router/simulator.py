"""A simulator of OpenAI-compatible upstreams: one base URL, many simulated LLMs, no language model behind them.

It speaks the wire (`/v1/chat/completions`, streamed or not, and `/v1/models`); `router.simulated` does the answering.
It knows nothing of routing.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from router.loopback import serve_in_thread
from router.simulated.mind import answer
from router.simulated.pool import POOL

SIMULATED_MODELS = tuple(llm.name for llm in POOL)
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Completion:
    """One simulated answer and its usage, tokens counted as a quarter of the characters."""

    model: str
    text: str
    input_tokens: int
    output_tokens: int
    finish_reason: str

    @property
    def id(self) -> str:
        return "simcmpl-" + hashlib.blake2b(f"{self.model}\0{self.text}".encode(), digest_size=12).hexdigest()

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }


class BadRequestError(Exception):
    """A request that an OpenAI-compatible endpoint refuses with status 400."""


def simulator_app(models: Sequence[str] | None = None, latency_s: float = 0.0) -> Starlette:
    """Build the simulator; it serves the pool of `router.simulated.pool`, or exactly the names given.

    A name without simulated skills gets a fixed text that calls itself simulated.
    """
    served = tuple(SIMULATED_MODELS if models is None else models)

    async def chat(request: Request) -> Response:
        try:
            body = await request.json()
            model, prompt, n_characters = _read_chat(body)
        except (ValueError, BadRequestError) as error:
            return _error(400, str(error), "invalid_request_error", None)
        if model not in served:
            return _error(404, f"The simulator does not serve {model!r}.", "invalid_request_error", "model_not_found")
        completion = _complete(model, prompt, n_characters, body.get("max_completion_tokens") or body.get("max_tokens"))
        if latency_s:
            await asyncio.sleep(latency_s)
        if body.get("stream"):
            with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return StreamingResponse(_events(completion, with_usage=with_usage), media_type="text/event-stream")
        return JSONResponse(_whole(completion))

    async def list_models(_: Request) -> Response:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "simulated"} for name in served]
        return JSONResponse({"object": "list", "data": listed})

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/models", list_models, methods=["GET"]),
    ]
    return Starlette(routes=routes)


@contextmanager
def run_simulator(models: Sequence[str] | None = None, port: int = 0, latency_s: float = 0.0) -> Iterator[str]:
    """Serve the simulator on loopback from a thread; yields its base URL, ending in /v1."""
    with serve_in_thread(simulator_app(models, latency_s), port) as url:
        yield f"{url}/v1"


def _read_chat(body: Any) -> tuple[str, str, int]:
    """The model, the last user message, and the characters of the whole conversation."""
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise BadRequestError("'model' must name a model.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise BadRequestError("'messages' must be a list of messages, and not empty.")
    texts = [_text(message.get("content")) for message in messages]
    asked = [text for text, message in zip(texts, messages, strict=True) if message.get("role") == "user"]
    return body["model"], asked[-1] if asked else texts[-1], sum(map(len, texts))


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    raise BadRequestError("a message's 'content' must be text or a list of parts.")


def _complete(model: str, prompt: str, n_characters: int, max_tokens: Any) -> Completion:
    text, finish_reason = answer(model, prompt), "stop"
    if isinstance(max_tokens, int) and _n_tokens(len(text)) > max_tokens > 0:
        text, finish_reason = text[: max_tokens * _CHARACTERS_PER_TOKEN], "length"
    return Completion(model, text, _n_tokens(n_characters), _n_tokens(len(text)), finish_reason)


def _n_tokens(n_characters: int) -> int:
    return max(1, -(-n_characters // _CHARACTERS_PER_TOKEN))


def _whole(completion: Completion) -> dict[str, Any]:
    message = {"role": "assistant", "content": completion.text}
    return {
        **_envelope(completion, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": completion.finish_reason}],
        "usage": completion.usage,
    }


async def _events(completion: Completion, *, with_usage: bool) -> AsyncIterator[str]:
    """Stream word by word as server-sent events, ending in [DONE]."""
    envelope = _envelope(completion, "chat.completion.chunk")
    pieces: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    pieces += [{"content": piece} for piece in re.findall(r"\s*\S+|\s+$", completion.text)]
    for delta in pieces:
        yield _event({**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await asyncio.sleep(0)  # each piece is its own chunk on the wire
    last = {"index": 0, "delta": {}, "finish_reason": completion.finish_reason}
    yield _event({**envelope, "choices": [last]})
    if with_usage:
        yield _event({**envelope, "choices": [], "usage": completion.usage})
    yield "data: [DONE]\n\n"


def _event(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


def _envelope(completion: Completion, kind: str) -> dict[str, Any]:
    return {
        "id": completion.id,
        "object": kind,
        "created": int(time.time()),
        "model": completion.model,
        "system_fingerprint": "simulated",
    }


def _error(status: int, message: str, kind: str, code: str | None) -> JSONResponse:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": error}, status_code=status)
