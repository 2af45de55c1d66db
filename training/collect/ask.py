"""Ask one model one question over an OpenAI-compatible HTTP endpoint, again where the failure may pass.

It does not know what a right answer is.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

TRANSIENT_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504})
N_ATTEMPTS = 4
FIRST_WAIT_S = 0.1
MAX_WAIT_S = 30.0
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said, what the endpoint counted (None is unknown), and how long it took."""

    text: str
    input_tokens: int | None
    output_tokens: int | None
    latency_s: float


class AskError(Exception):
    """No answer was had; the message is the last reason. `retry_after_s` is None where asking again cannot help."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@asynccontextmanager
async def open_client(base_url: str, concurrency: int, api_key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Open the one HTTP client of a collection."""
    connector = aiohttp.TCPConnector(limit=concurrency, keepalive_timeout=30)
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    async with httpx.AsyncClient(
        base_url=base_url.rstrip("/") + "/",
        transport=AiohttpTransport(client=session),
        headers=headers,
        timeout=TIMEOUT_S,
        trust_env=False,
    ) as client:
        yield client


async def ask(client: httpx.AsyncClient, model: str, prompt: str) -> Reply:
    """Ask until there is an answer; AskError where there is none after N_ATTEMPTS, or none to be hoped for."""
    wait_s = FIRST_WAIT_S
    for attempt in range(1, N_ATTEMPTS + 1):
        try:
            return await _ask_once(client, model, prompt)
        except AskError as error:
            if error.retry_after_s is None or attempt == N_ATTEMPTS:
                raise
            await asyncio.sleep(min(MAX_WAIT_S, max(wait_s, error.retry_after_s)))
            wait_s *= 2
    raise AssertionError("the last attempt returns or raises")


async def _ask_once(client: httpx.AsyncClient, model: str, prompt: str) -> Reply:
    started = time.perf_counter()
    try:
        response = await client.post(
            "chat/completions", json={"model": model, "messages": [{"role": "user", "content": prompt}]}
        )
    except (httpx.HTTPError, aiohttp.ClientError, OSError) as error:
        raise AskError(f"{type(error).__name__}: {error}", retry_after_s=0.0) from error
    latency_s = time.perf_counter() - started
    if response.status_code != 200:
        retry_after_s = _retry_after_s(response) if response.status_code in TRANSIENT_STATUSES else None
        raise AskError(f"status {response.status_code}: {response.text[:200]}", retry_after_s)
    try:
        return _read(response.json(), latency_s)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise AskError(f"an answer that is no chat completion: {response.text[:200]}") from error


def _read(body: Any, latency_s: float) -> Reply:
    text = body["choices"][0]["message"]["content"]
    usage = body.get("usage") or {}
    if not isinstance(text, str):
        raise TypeError("the content is no text")
    return Reply(text, usage.get("prompt_tokens"), usage.get("completion_tokens"), latency_s)


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", "0")))
    except ValueError:  # a date
        return 0.0
