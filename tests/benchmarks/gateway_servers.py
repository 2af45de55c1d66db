"""What `bench_gateway` measures, each in a process of its own: upstreams, a bare pass-through, this router, LiteLLM.

Every gateway runs as its users run it, on one worker process, with its key checked. This router is trained on simulated
logs first, routes every prompt and records every decision in SQLite; LiteLLM routes nothing and records nothing.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import aiohttp
import yaml
from fastapi import FastAPI, Request
from rich.console import Console
from starlette.responses import Response, StreamingResponse

from data.database import open_engine, upgrade
from data.demo.generate import generate
from router.listener import bind
from router.simulated.pool import POOL
from router.simulator import run_simulator
from training.demo import fit, learn

MODULE = "tests.benchmarks.gateway_servers"
KEY = "bench-key-that-is-long-enough"
ROOT = Path(__file__).parents[2]
N_QUESTIONS = 1_200
CHUNKS, CHUNK_EVERY_S = 50, 0.005
UPSTREAM_VARIABLE = "BENCH_UPSTREAM"
START_S = 180.0

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "mock",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there, how may I assist you today?"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
    },
    separators=(",", ":"),
)
NGINX = """
worker_processes 1; pid nginx.pid; error_log stderr error; daemon off;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 10000000; keepalive_timeout 3600s; client_body_buffer_size 64k;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port};
    location /v1/chat/completions {{ default_type application/json; return 200 '{answer}'; }}
  }}
}}
"""


@dataclass(frozen=True)
class Server:
    """A gateway that runs: whom to ask for which model, and whose process that is."""

    name: str
    url: str
    model: str
    pid: int

    @property
    def cpu_s(self) -> float:
        """Processor time so far, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def upstream(folder: Path) -> Iterator[str]:
    """An upstream of whole answers: nginx where it is installed, since it costs next to nothing; yields its URL."""
    port = free_port()
    if nginx := shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin"):
        work = folder / "nginx"
        work.mkdir()
        (work / "nginx.conf").write_text(NGINX.format(port=port, answer=ANSWER))
        command = [nginx, "-p", f"{work}/", "-c", str(work / "nginx.conf")]
    else:
        command = [sys.executable, "-m", MODULE, "whole", str(port)]
    with running("upstream", command, port, folder, path="/"):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def streaming_upstream(folder: Path) -> Iterator[str]:
    """An upstream of streams, whose chunks say when they were sent; yields its URL."""
    port = free_port()
    with running("streams", [sys.executable, "-m", MODULE, "streams", str(port)], port, folder, path="/"):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def bare(folder: Path, upstream_url: str) -> Iterator[Server]:
    """FastAPI with this router's HTTP client and nothing else: no key, no routing, no record."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{MODULE}:app", "--port", str(port), "--no-access-log"]
    environ = {UPSTREAM_VARIABLE: upstream_url}
    with running("bare", [*command, "--log-level", "warning"], port, folder, environ) as pid:
        yield Server("bare", f"http://127.0.0.1:{port}", "mock", pid)


def train(folder: Path, encoder_spec: str) -> None:
    """Fill a database with simulated logs, train on them with an encoder and promote the artifact."""
    engine = open_engine(f"sqlite:///{folder / 'bench.db'}")
    upgrade(engine)
    quiet = Console(quiet=True)
    with run_simulator() as simulator_url:
        learn(quiet, engine, generate(N_QUESTIONS, 0), simulator_url)
    fit(quiet, engine, folder / "artifacts", 0, encoder_spec)
    engine.dispose()


@contextmanager
def router(folder: Path, upstream_url: str, name: str = "embedrouter") -> Iterator[Server]:
    """This router as `embedrouter serve` starts it, on the artifact that `train` left in the folder."""
    port = free_port()
    configuration = {
        "version": 1,
        "master_key": KEY,
        "database_url": f"sqlite:///{folder / 'bench.db'}",
        "artifacts_dir": str(folder / "artifacts"),
        "pool": [{"name": m.name, "upstream": {"base_url": upstream_url, "api_key": "sk-x"}} for m in POOL],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    command = [sys.executable, "-m", "embedrouter", "serve", "--port", str(port), "--admin-port", "0"]
    command += ["--config", str(folder / "config.yaml")]
    with running("embedrouter", command, port, folder) as pid:
        yield Server(name, f"http://127.0.0.1:{port}", "auto", pid)


@contextmanager
def litellm(folder: Path, upstream_url: str, version: str) -> Iterator[Server]:
    """LiteLLM's proxy, pinned, in a virtual environment of its own that stays in var/ for the next time."""
    home = ROOT / "var" / "bench" / f"litellm-{version}"
    program = home / "bin" / "litellm"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", f"litellm[proxy]=={version}"]
        subprocess.run(pip, check=True)
    port = free_port()
    parameters = {"model": "openai/mock", "api_base": upstream_url, "api_key": "sk-x"}
    configuration = {
        "model_list": [{"model_name": "mock", "litellm_params": parameters}],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False},
    }
    (folder / "litellm.yaml").write_text(yaml.safe_dump(configuration))
    command = [str(program), "--config", str(folder / "litellm.yaml"), "--port", str(port), "--num_workers", "1"]
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with running("litellm", command, port, folder, environ, path="/health/liveliness") as pid:
        yield Server("litellm", f"http://127.0.0.1:{port}", "mock", pid)


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    port: int,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    path: str = "/docs",
) -> Iterator[int]:
    """Run a server until the block ends; yields its process once it answers. Its output goes to a file."""
    with (folder / f"{name}.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **(environ or {})})
    try:
        _wait_until_up(f"http://127.0.0.1:{port}{path}", server, folder / f"{name}.log")
        yield server.pid
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_until_up(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        try:
            urlopen(url, timeout=5).close()
        except HTTPError:
            return  # it refuses the path, so it is there
        except (URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"nothing answers at {url}: {log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    with bind("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])


# The bare pass-through: `uvicorn tests.benchmarks.gateway_servers:app`


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        app.state.client = client
        app.state.url = f"{os.environ.get(UPSTREAM_VARIABLE, '')}/chat/completions"
        yield


app = FastAPI(lifespan=_lifespan)


@app.post("/v1/chat/completions")
async def forward(request: Request) -> Response:
    client: aiohttp.ClientSession = request.app.state.client
    body = await request.body()
    headers = {"content-type": "application/json"}
    if b'"stream"' in body:
        answer = await client.post(request.app.state.url, data=body, headers=headers)
        return StreamingResponse(answer.content.iter_any(), answer.status, media_type="text/event-stream")
    async with client.post(request.app.state.url, data=body, headers=headers) as answer:
        return Response(await answer.read(), answer.status, media_type="application/json")


# Upstreams on asyncio: `python -m tests.benchmarks.gateway_servers whole|streams PORT`


class WholeAnswers(asyncio.Protocol):
    """Answers every request at once, as soon as all of it came."""

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
            self.answer()

    def answer(self) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n"
        self.transport.write(f"{head}{ANSWER}".encode())


class Streams(WholeAnswers):
    """Streams chunks at a steady pace; each says when it was sent, on the clock that all processes share."""

    def answer(self) -> None:
        self.writing = asyncio.create_task(self.write())

    async def write(self) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self.transport.write(head.encode())
        for _ in range(CHUNKS):
            self.event({"content": f"{time.monotonic():.7f} "}, None)
            await asyncio.sleep(CHUNK_EVERY_S)
        self.event({}, "stop")
        self.piece(b"data: [DONE]\n\n")
        self.piece(b"")

    def event(self, delta: Mapping[str, str], finish_reason: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
        self.piece(b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n")

    def piece(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%s\r\n" % (len(data), data))


def serve_upstream(kind: str, port: int) -> None:
    async def run() -> None:
        protocol = {"whole": WholeAnswers, "streams": Streams}[kind]
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    serve_upstream(sys.argv[1], int(sys.argv[2]))
