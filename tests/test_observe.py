"""Metrics on the port that only this machine reaches, and logs as JSON: with request ids, without prompts and keys."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from data.database import ready_engine
from data.store import set_model
from router.admin import create_admin
from router.champion import ChampionWatch
from router.logs import Blotting, JsonFormatter, secrets_of
from router.loopback import serve_in_thread
from tests.serving import (
    A_POEM,
    A_SUM,
    Gateway,
    entry,
    planted_artifact,
    planted_engine,
    register,
    run_gateway,
    settings,
)
from tests.upstreams import run_upstream

NAMES = {
    "embedrouter_requests",
    "embedrouter_overhead_seconds",
    "embedrouter_route_seconds",
    "embedrouter_ttft_seconds",
    "embedrouter_fallbacks",
    "embedrouter_unpriced_requests",
    "embedrouter_in_flight",
    "embedrouter_encoder_queue_depth",
    "embedrouter_records_spooled",
    "embedrouter_artifact_age_seconds",
}
HEADERS = {"authorization": "Bearer sk-ours"}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Two models, the second without a price; the first fails."""
    engine = ready_engine(f"sqlite:///{tmp_path}/observe.db")
    register(engine, planted_artifact(tmp_path / "artifacts", {"calculator": (0.9, 0.3), "poet": (0.2, 0.8)}))
    with run_upstream() as upstream:
        pool = [
            entry("calculator", upstream.url("http_500")),
            entry("poet", upstream.url("good"), usd=None),
        ]
        with run_gateway(engine, settings(pool, master_key="sk-ours")) as running:
            yield running
    engine.dispose()


def ask(gateway: Gateway, prompt: str, **more: object) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], **more}
    return httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=HEADERS, timeout=20)


def samples(gateway: Gateway) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """What /metrics says over HTTP: sample -> labels -> value."""
    with serve_in_thread(create_admin(gateway.app.state.metrics)) as url:
        answer = httpx.get(f"{url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    names = set()
    for family in text_string_to_metric_families(answer.text):
        names.add(family.name)
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    assert names == NAMES
    return found


def test_requests_fallbacks_times_and_missing_prices_are_counted(gateway: Gateway) -> None:
    assert ask(gateway, A_SUM).json()["model"] == "poet"  # the calculator fails
    assert ask(gateway, A_POEM, stream=True).status_code == 200
    assert httpx.get(f"{gateway.base_url}/models").status_code == 401
    assert httpx.get(f"{gateway.url}/secret-path").status_code == 404
    found = samples(gateway)
    chat = "/v1/chat/completions"
    assert found["embedrouter_requests_total"] == {
        (("endpoint", chat), ("model", "poet"), ("policy", "quality"), ("status", "200")): 2,
        (("endpoint", "/v1/models"), ("model", ""), ("policy", ""), ("status", "401")): 1,
        (("endpoint", "unmatched"), ("model", ""), ("policy", ""), ("status", "404")): 1,
    }
    assert list(found["embedrouter_fallbacks_total"].values()) == [1]
    assert dict(next(iter(found["embedrouter_fallbacks_total"])))["model"] == "calculator"
    assert found["embedrouter_unpriced_requests_total"] == {(): 2}
    for name, n in (("overhead", 2), ("route", 2), ("ttft", 1)):
        assert found[f"embedrouter_{name}_seconds_count"] == {(): n}
    assert found["embedrouter_in_flight"] == {(): 0}
    assert 0 <= found["embedrouter_artifact_age_seconds"][()] < 600


def test_no_label_holds_a_prompt_a_key_or_an_id(gateway: Gateway) -> None:
    request_id = ask(gateway, A_SUM).headers["x-request-id"]
    labels = {value for by_labels in samples(gateway).values() for pairs in by_labels for _, value in pairs}
    assert not any(hidden in label for label in labels for hidden in (A_SUM, "sk-ours", request_id))


def test_waiting_records_are_seen(gateway: Gateway) -> None:
    from sqlalchemy import text

    with gateway.engine.begin() as connection:
        connection.execute(text("ALTER TABLE decisions RENAME TO elsewhere"))
    for _ in range(3):
        ask(gateway, A_POEM)
    for _ in range(200):
        if samples(gateway)["embedrouter_records_spooled"] == {(): 3}:
            break
    else:
        raise AssertionError(samples(gateway)["embedrouter_records_spooled"])
    with gateway.engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO decisions"))
    gateway.decisions(3)


def test_a_request_that_is_refused_before_any_choice_is_no_decision_but_its_line_says_why(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "router.access"):
        refused = ask(gateway, A_SUM, embedrouter={"max_cost_usd": 0.0})
        answered = ask(gateway, A_POEM)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "no_eligible_model")
    assert "x-embedrouter-decision-id" not in refused.headers
    assert [row["request_id"] for row in gateway.decisions(1)] == [answered.headers["x-request-id"]]
    fields = [line.fields for line in caplog.records if hasattr(line, "fields")]
    (said,) = [line for line in fields if line["request_id"] == refused.headers["x-request-id"]]
    assert (said["status"], said["error"]) == (400, "no_eligible_model")


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "router.x", "levelname": "INFO", "msg": message, **extra})
    made.levelname = "INFO"
    return made


def test_a_log_line_is_one_json_object() -> None:
    line = JsonFormatter().format(record('two\nlines and "quotes"', fields={"status": 200}))
    assert "\n" not in line
    shown = json.loads(line)
    assert (shown["message"], shown["level"], shown["status"]) == ('two\nlines and "quotes"', "INFO", 200)


def test_a_secret_in_a_log_line_is_blotted_out() -> None:
    pool = [entry("a", "http://127.0.0.1:1/v1", key="sk-upstream")]
    secrets = secrets_of(settings(pool, master_key="sk-ours", keys=[{"name": "app", "key": "sk-ours-2"}]))
    assert secrets.held == ("sk-upstream", "sk-ours-2", "sk-ours")
    line = Blotting(JsonFormatter(), secrets).format(record("sent sk-upstream, sk-ours-2 and sk-ours"))
    assert json.loads(line)["message"] == "sent ***, *** and ***"


def test_a_key_from_the_environment_is_blotted_out_as_soon_as_the_pool_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATE_KEY", "sk-late")
    secrets = secrets_of(settings())
    formatter = Blotting(JsonFormatter(), secrets)
    with planted_engine(tmp_path, {"calculator": (0.9, 0.3)}) as engine:
        watch = ChampionWatch(engine, settings(), secrets=secrets)
        assert secrets.held == ()
        set_model(engine, "calculator", upstream_url="http://127.0.0.1:9/v1", upstream_key_env="LATE_KEY")
        watch.refresh()
    assert json.loads(formatter.format(record("sent sk-late")))["message"] == "sent ***"


def test_serve_logs_json_with_request_ids_and_without_prompts_or_keys(tmp_path: Path) -> None:
    engine = ready_engine(f"sqlite:///{tmp_path}/var/embedrouter.db")
    register(engine, planted_artifact(tmp_path / "var" / "artifacts", {"calculator": (0.9, 0.3), "poet": (0.2, 0.8)}))
    engine.dispose()
    with run_upstream() as upstream:
        pool = [entry(name, upstream.url("good"), key="sk-upstream") for name in ("calculator", "poet")]
        content = {"version": 1, "master_key": "sk-ours", "pool": pool}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDROUTER_")}
        with subprocess.Popen(
            [sys.executable, "-m", "embedrouter", "serve", "--port", "0"],
            cwd=tmp_path,
            env=kept | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            said = {}
            for line in process.stdout:
                name, _, value = line.strip().partition(" listens on " if "listens" in line else ": ")
                said[name] = value
                if name == "try":
                    break
            body = {"model": "auto", "messages": [{"role": "user", "content": "the wine-dark sea"}]}
            for key in ("sk-ours", "sk-wrong"):
                headers = {"authorization": f"Bearer {key}", "x-request-id": f"id-of-{key[3:]}"}
                httpx.post(f"{said['EmbedRouter']}/v1/chat/completions", json=body, headers=headers, timeout=20)
            metrics = httpx.get(said["metrics"]).text
            process.send_signal(signal.SIGINT)
            _, log = process.communicate(timeout=30)
    assert said["metrics"].startswith("http://127.0.0.1:")
    assert 'embedrouter_requests_total{endpoint="/v1/chat/completions"' in metrics
    # the command line's own last word is no log
    lines = [json.loads(line) for line in log.splitlines() if line != "embedrouter: stopped"]
    by_id = {line["request_id"]: line for line in lines if line["logger"] == "router.access"}
    assert by_id["id-of-ours"]["status"] == 200
    assert len(by_id["id-of-ours"]["decision_id"]) == 32
    assert by_id["id-of-wrong"]["status"] == 401
    assert not any(hidden in log for hidden in ("wine-dark", "sk-ours", "sk-wrong", "sk-upstream"))
