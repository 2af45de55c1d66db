"""The gateway beside a bare pass-through, in one run: python -m tests.benchmarks.bench_gateway

The pass-through is FastAPI with the same HTTP client and nothing else: no routing, no key, no record. Each server is a
process of its own; every prompt is distinct. What counts is the ratio: the machine's speed falls out of it.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import aiohttp
import httpx
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response

from data.database import ready_engine
from router.app import create_app
from router.listener import bind
from tests.serving import entry, planted_artifact, register, settings

N_MODELS = 6
KEY = "bench-key"
HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 400}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 100, "total_tokens": 120},
    }
).encode()


class UpstreamProtocol(asyncio.Protocol):
    """Answers every request at once; a request of the load fits one read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if found and len(body) >= length:
            self.buffer = b""
            head = (
                f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n".encode()
            )
            self.transport.write(head + ANSWER)


def serve_upstream(port: int, ready: Event) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(UpstreamProtocol, "127.0.0.1", port)
        ready.set()
        await server.serve_forever()

    asyncio.run(run())


def serve_bare(port: int, ready: Event, upstream_url: str) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            app.state.client = client
            ready.set()
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def forward(request: Request) -> Response:
        client: aiohttp.ClientSession = request.app.state.client
        headers = {"content-type": "application/json"}
        url = f"{upstream_url}/chat/completions"
        async with client.post(url, data=await request.body(), headers=headers) as answer:
            return Response(await answer.read(), answer.status, media_type="application/json")

    uvicorn.run(app, port=port, access_log=False, log_level="warning")


def serve_gateway(port: int, ready: Event, upstream_url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = ready_engine(f"sqlite:///{folder}/bench.db")
        forecasts = {f"model-{i}": (0.3 + 0.1 * i, 0.8 - 0.1 * i) for i in range(N_MODELS)}
        register(engine, planted_artifact(Path(folder) / "artifacts", forecasts))
        pool = [entry(name, upstream_url) for name in forecasts]
        configuration = settings(pool, master_key=KEY, recording={"flush_interval_s": 0.5}, champion_poll_s=1.0)
        app = create_app(configuration, engine)
        ready.set()
        uvicorn.run(app, port=port, access_log=False, log_level="warning")


@contextmanager
def process(target: object, *arguments: object) -> Iterator[str]:
    """Run a server in a process of its own on a free port; yields its URL."""
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    running = context.Process(target=target, args=(port, ready, *arguments), daemon=True)  # type: ignore[arg-type]
    running.start()
    assert ready.wait(120), "a server did not start"
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        running.terminate()
        running.join(20)


async def measure(url: str, n_connections: int, seconds: float, prompt_chars: int) -> tuple[float, float]:
    """Requests per second, and the median latency in ms."""
    latencies: list[float] = []
    number = 0
    filler = "the sum of two numbers and a poem " * (prompt_chars // 34 + 1)

    async def load(session: aiohttp.ClientSession, until: float, into: list[float]) -> None:
        nonlocal number
        while time.perf_counter() < until:
            number += 1
            prompt = f"{number} {filler}"[:prompt_chars]
            body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": prompt}]}).encode()
            started = time.perf_counter()
            async with session.post(f"{url}/chat/completions", data=body, headers=HEADERS) as response:
                await response.read()
                assert response.status == 200, await response.text()
            into.append(time.perf_counter() - started)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for into, duration in (([], min(1.0, seconds)), (latencies, seconds)):  # the first warms up
            started = time.perf_counter()
            await asyncio.gather(*(load(session, started + duration, into) for _ in range(n_connections)))
        elapsed = time.perf_counter() - started
    return len(latencies) / elapsed, statistics.median(latencies) * 1e3


async def wait_until_up(url: str) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(400):
            try:
                await client.get(url)
                return
            except httpx.ConnectError:
                await asyncio.sleep(0.05)
    raise RuntimeError(f"{url} does not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3, help="the two servers take turns; the median round counts")
    arguments = parser.parse_args()
    with (
        process(serve_upstream) as upstream_url,
        process(serve_bare, upstream_url) as bare,
        process(serve_gateway, upstream_url) as gateway,
    ):
        for url in (bare, gateway):
            asyncio.run(wait_until_up(url))
        print(f"{'load':34}{'bare':>12}{'gateway':>12}{'ratio':>8}   (median of {arguments.rounds} rounds)")
        for prompt_chars in (100, 8000):
            for n_connections, what in ((16, "requests/s"), (1, "p50 ms")):
                figures = {bare: [], gateway: []}  # type: dict[str, list[float]]
                for _ in range(arguments.rounds):
                    for url, found in figures.items():
                        rate, p50 = asyncio.run(measure(url, n_connections, arguments.seconds, prompt_chars))
                        found.append(rate if n_connections > 1 else p50)
                one, other = (statistics.median(found) for found in figures.values())
                ratio = one / other if n_connections > 1 else other / one
                load = f"{what}, {n_connections} conn, {prompt_chars // 4} tokens"
                print(f"{load:34}{one:12.2f}{other:12.2f}{ratio:8.2f}", flush=True)


if __name__ == "__main__":
    main()
