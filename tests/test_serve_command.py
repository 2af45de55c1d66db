"""`embedrouter serve` and `embedrouter route`, as processes."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from data.database import ready_engine
from data.errors import EmbedRouterError
from data.store import set_model
from embedrouter import app
from router.errors import ConfigError
from router.listener import bind
from tests.serving import A_POEM, A_SUM, entry, planted_artifact, register

FORECASTS = {"calculator": (0.9, 0.3), "poet": (0.2, 0.8)}
EMBEDROUTER = [sys.executable, "-m", "embedrouter"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder whose default database has a champion."""
    engine = ready_engine(f"sqlite:///{tmp_path}/var/embedrouter.db")
    register(engine, planted_artifact(tmp_path / "var" / "artifacts", FORECASTS))
    engine.dispose()
    return tmp_path


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What a verb does to this process's logs ends with its test: its stderr is closed then."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    flags = {name: getattr(logging, name) for name in ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, value in flags.items():
        setattr(logging, name, value)
    for name in ("router", "router.access"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def environ(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDROUTER_")}
    return kept | {"PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "120"} | more


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a verb in the folder, in this process; a user's error is the result's exception."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    for name in [name for name in os.environ if name.startswith("EMBEDROUTER_")]:
        monkeypatch.delenv(name)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def refusal(result: Result) -> str:
    """What a user's error says."""
    assert isinstance(result.exception, EmbedRouterError)
    return str(result.exception)


@contextmanager
def serving(folder: Path, *arguments: str, **more: str) -> Iterator[tuple[str, list[str]]]:
    """A running `serve`: its URL and the lines it printed at the start."""
    command = [*EMBEDROUTER, "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environ(**more), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while not lines or not lines[-1].startswith("try: "):
                line = process.stdout.readline()
                assert line, f"serve ended after {lines}"
                lines.append(line.rstrip("\n"))
            match = re.search(r"http://[\d.]+:\d+", lines[0])
            assert match is not None
            yield match[0], lines
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def test_serve_answers_through_simulated_upstreams_and_says_what_it_serves(folder: Path) -> None:
    with serving(folder, "--simulate-upstreams") as (url, lines):
        assert "routable: 2 of 2 models: calculator, poet" in lines
        assert any("SIMULATED" in line for line in lines)
        assert any("keys: NONE" in line for line in lines)
        for prompt, model in ((A_SUM, "calculator"), (A_POEM, "poet")):
            body = {"model": "auto", "messages": [{"role": "user", "content": prompt}]}
            response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)
            assert (response.status_code, response.json()["model"]) == (200, model)
        assert httpx.get(f"{url}/health/ready").json()["n_routable_models"] == 2
    engine = ready_engine(f"sqlite:///{folder}/var/embedrouter.db")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM decisions").scalar() == 2  # written at shutdown
    engine.dispose()


def test_the_curl_command_that_serve_prints_works(folder: Path) -> None:
    with serving(folder, "--simulate-upstreams", EMBEDROUTER_MASTER_KEY="k") as (_, lines):
        command = lines[-1].removeprefix("try: ")
        assert "authorization" in command
        answer = subprocess.run(
            ["bash", "-c", command], env=environ(EMBEDROUTER_MASTER_KEY="k"), capture_output=True, text=True, timeout=30
        )
        assert json.loads(answer.stdout)["object"] == "chat.completion"


def test_serve_starts_without_a_champion_and_says_what_to_run(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, lines):
        assert any("embedrouter train" in line for line in lines)
        response = httpx.get(f"{url}/health/ready")
        assert response.status_code == 503
        assert "embedrouter train" in response.json()["reason"]


def test_serve_beyond_loopback_without_a_key_is_refused(run: Callable[..., Result]) -> None:
    said = refusal(run("serve", "--host", "0.0.0.0", "--port", "0"))
    assert "refusing to serve on 0.0.0.0 without a key" in said


def test_a_taken_port_is_said_plainly(run: Callable[..., Result]) -> None:
    with bind("127.0.0.1", 0) as taken:
        said = refusal(run("serve", "--port", str(taken.getsockname()[1])))
    assert "Address already in use" in said


def test_a_host_that_is_not_here_is_said_plainly() -> None:
    with pytest.raises(ConfigError, match=r"cannot serve on 192\.0\.2\.1 port 0"):
        bind("192.0.2.1", 0)


def test_an_unknown_configuration_key_is_refused_with_the_nearest_name(
    run: Callable[..., Result], folder: Path
) -> None:
    (folder / "config.yaml").write_text("artifact_dir: here\n")
    assert "unknown key `artifact_dir` at the top level; did you mean `artifacts_dir`?" in refusal(run("serve"))


def test_route_ranks_without_any_upstream_and_says_so(run: Callable[..., Result]) -> None:
    answer = run("route", A_POEM)
    assert answer.exit_code == 0
    assert "no model can be called" in answer.stdout
    assert answer.stdout.index("poet") < answer.stdout.index("calculator")
    assert "0.800" in answer.stdout
    assert "no upstream" in answer.stdout


def test_route_ranks_no_model_that_is_retired(run: Callable[..., Result], folder: Path) -> None:
    engine = ready_engine(f"sqlite:///{folder}/var/embedrouter.db")
    set_model(engine, "poet", retired=True)
    answer = json.loads(run("route", A_POEM, "--json").stdout)
    assert answer["encoder"]
    assert [c["model"] for c in answer["candidates"]] == ["calculator"]
    set_model(engine, "calculator", retired=True)
    engine.dispose()
    assert refusal(run("route", A_POEM)) == (
        "no model of the pool can be routed to: calculator: retired; poet: retired"
    )


def test_route_without_a_champion_says_what_to_run(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "embedrouter train" in refusal(run("route", "hello", "--database", f"sqlite:///{tmp_path}/empty.db"))


def test_route_explains_its_choice_as_json(run: Callable[..., Result], folder: Path) -> None:
    pool = [
        entry(name, "http://127.0.0.1:1/v1", usd=usd) for name, usd in (("calculator", 1000), ("poet", 1), ("new", 1))
    ]
    (folder / "config.yaml").write_text(json.dumps({"version": 1, "pool": pool}))
    answer = json.loads(run("route", A_SUM, "--policy", "balanced", "--lambda", "20", "--json").stdout)
    assert answer["model"] == "poet"  # calculator: 0.9 - 20 x 0.108, poet: 0.2 - 20 x 0.000108
    assert answer["policy"] == {"name": "balanced", "lambda": 20.0}
    assert [c["model"] for c in answer["candidates"]] == ["poet", "calculator"]
    assert answer["candidates"][1]["expected_cost_usd"] == pytest.approx((8 + 100) * 1000 / 1e6)
    (out,) = answer["excluded"]
    assert out["model"] == "new"
    assert out["reason"].startswith("no logs: not in artifact")


def test_route_shows_a_table_with_its_choice(run: Callable[..., Result], folder: Path) -> None:
    pool = [entry("calculator", "http://127.0.0.1:1/v1"), entry("poet", "http://127.0.0.1:1/v1")]
    (folder / "config.yaml").write_text(json.dumps({"version": 1, "pool": pool}))
    assert "quality chooses calculator" in run("route", A_SUM).stdout


def test_route_refuses_a_policy_that_there_is_not(run: Callable[..., Result]) -> None:
    assert run("route", "hello", "--policy", "best").exit_code == 2


@pytest.mark.parametrize(("option", "most"), [("--lambda", "1e+12"), ("--min-p-correct", "1"), ("--max-error", "1")])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.5"])
def test_route_refuses_a_number_that_is_none_by_its_options_name(
    run: Callable[..., Result], option: str, most: str, value: str
) -> None:
    said = refusal(run("route", "hello", option, value))
    assert said == f"{option} is {value}; it must be a number from 0 to {most}"


@pytest.mark.parametrize("verb", ["serve", "route"])
def test_each_verb_has_an_example_in_its_help(run: Callable[..., Result], verb: str) -> None:
    assert f"embedrouter {verb}" in run(verb, "--help").stdout.partition("Examples:")[2]
