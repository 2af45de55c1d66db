"""The load of `bench_gateway`: wrk where it is installed, else aiohttp; and a client that times the chunks of streams.

Every prompt is distinct, so that no cache answers.
"""

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import aiohttp

from tests.benchmarks.gateway_servers import KEY, Server

FILLER = "There are {0} apples in {1} baskets, and somebody counts them again before the evening comes. "
ASK = "Question {0}: what is {0} plus {1}? Answer briefly and explain the reasoning."
HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
CHARS_PER_TOKEN = 4
LUA = """
local model, key, filler = os.getenv("MODEL"), os.getenv("KEY"), os.getenv("FILLER")
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. key
local n = math.floor(os.time() % 100000) * 1000000
request = function()
  n = n + 1
  return wrk.format(nil, "/v1/chat/completions", nil, string.format(
    '{"model":"%s","messages":[{"role":"user","content":"%sQuestion %d: what is %d plus %d? ' ..
    'Answer briefly and explain the reasoning."}]}', model, filler, n, n, n * 7))
end
"""
UNIT_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_numbers = count(int(time.time() % 100_000) * 1_000_000)


@dataclass(frozen=True)
class Round:
    """One server under one load: answers a second, the median answer's time, and the server's processor time for each.

    `n` is how many were answered.
    """

    n: int
    per_second: float
    p50_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Streamed:
    """One server's streams, medians: from a request to its first chunk, and a chunk's way from upstream to client."""

    first_ms: float
    chunk_ms: float


def filler(n_tokens: int) -> str:
    """Text to stand before the question, so that a prompt has about that many tokens."""
    sentences = (FILLER.format(i, 3 * i) for i in count(2))
    text = ""
    while len(text) < n_tokens * CHARS_PER_TOKEN - len(ASK):
        text += next(sentences)
    return text


def load(server: Server, folder: Path, n_connections: int, seconds: float, before: str = "") -> Round:
    """Ask for some seconds over some connections."""
    cpu_s = server.cpu_s
    wrk = shutil.which("wrk")
    if wrk is None:
        n, per_second, p50_ms = asyncio.run(_ask(server, n_connections, seconds, before))
    else:
        n, per_second, p50_ms = _wrk(wrk, server, folder, n_connections, seconds, before)
    return Round(n, per_second, p50_ms, (server.cpu_s - cpu_s) * 1e3 / max(n, 1))


def _wrk(
    wrk: str, server: Server, folder: Path, n_connections: int, seconds: float, before: str
) -> tuple[int, float, float]:
    script = folder / "chat.lua"
    script.write_text(LUA)
    command = [wrk, "-t1", f"-c{n_connections}", f"-d{seconds:.0f}s", "--timeout", "30s", "--latency"]
    environ = {**os.environ, "MODEL": server.model, "KEY": KEY, "FILLER": before}
    ran = subprocess.run(
        [*command, "-s", str(script), server.url], env=environ, capture_output=True, text=True, check=True
    )
    if "Non-2xx" in ran.stdout:
        raise RuntimeError(f"{server.name} refuses: {ran.stdout}")
    said = re.search(r"50%\s+([\d.]+)(us|ms|s)\b.*?(\d+) requests in.*?Requests/sec:\s+([\d.]+)", ran.stdout, re.DOTALL)
    if said is None:
        raise RuntimeError(f"wrk says nothing of {server.name}: {ran.stdout}{ran.stderr}")
    return int(said[3]), float(said[4]), float(said[1]) * UNIT_MS[said[2]]


async def _ask(server: Server, n_connections: int, seconds: float, before: str) -> tuple[int, float, float]:
    latencies: list[float] = []
    started = time.perf_counter()

    async def work(session: aiohttp.ClientSession) -> None:
        while (began := time.perf_counter()) < started + seconds:
            async with session.post(f"{server.url}/v1/chat/completions", data=_body(server, before)) as response:
                await response.read()
                assert response.status == 200, await response.text()
            latencies.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=HEADERS) as session:
        await asyncio.gather(*(work(session) for _ in range(n_connections)))
    elapsed_s = time.perf_counter() - started
    return len(latencies), len(latencies) / elapsed_s, statistics.median(latencies) * 1e3


def streams(server: Server, n_streams: int, n_connections: int) -> Streamed:
    """Read streams whose chunks say when they were sent."""
    return asyncio.run(_read_streams(server, n_streams, n_connections))


async def _read_streams(server: Server, n_streams: int, n_connections: int) -> Streamed:
    first: list[float] = []
    delays: list[float] = []
    left = iter(range(n_streams))

    async def work(session: aiohttp.ClientSession) -> None:
        for _ in left:
            began, is_first = time.monotonic(), True
            async with session.post(f"{server.url}/v1/chat/completions", data=_body(server, stream=True)) as response:
                assert response.status == 200, await response.text()
                async for line in response.content:
                    now = time.monotonic()
                    if line.startswith(b'data: {"') and (sent := _sent_at(line)) is not None:
                        if is_first:
                            first.append(now - began)
                            is_first = False
                        delays.append(now - sent)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=HEADERS) as session:
        await asyncio.gather(*(work(session) for _ in range(n_connections)))
    return Streamed(statistics.median(first) * 1e3, statistics.median(delays) * 1e3)


def _sent_at(line: bytes) -> float | None:
    choices = json.loads(line.removeprefix(b"data: "))["choices"]
    content = choices[0]["delta"].get("content") if choices else None
    return float(content) if content else None


def _body(server: Server, before: str = "", *, stream: bool = False) -> bytes:
    number = next(_numbers)
    message = {"role": "user", "content": before + ASK.format(number, 7 * number)}
    body = {"model": server.model, "messages": [message]}
    return json.dumps({**body, "stream": True} if stream else body).encode()
