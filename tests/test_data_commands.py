"""The verbs db, import and models, as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from data.database import open_engine, writing
from data.tables import Model
from tests.conftest import url_of
from tests.logs import write_long

ROOT = Path(__file__).parents[1]


def run(folder: Path, *words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder of its own."""
    command = [sys.executable, str(ROOT / "embedrouter.py"), *words]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(environment or {})}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def test_the_default_database_is_a_file_below_var(tmp_path: Path) -> None:
    write_long(tmp_path / "tiny", [("q1", "small", 1), ("q2", "small", 0), ("q9", "small", 1)])
    done = run(tmp_path, "import", "long", "tiny")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 new, 0 repeated, 0 conflicting, 1 rejected" in done.stdout
    assert "correctness.csv line 4: question_id q9 is not in questions.csv" in done.stdout
    assert (tmp_path / "var" / "embedrouter.db").is_file()
    (rejects,) = (tmp_path / "var" / "rejects").iterdir()
    assert rejects.name.startswith("long-tiny-")
    assert f"in var/rejects/{rejects.name}" in done.stdout
    assert "0 new, 2 repeated, 0 conflicting, 1 rejected" in run(tmp_path, "import", "long", "tiny").stdout


def test_a_database_is_upgraded_checked_and_filled(empty_engine: Engine, tmp_path: Path) -> None:
    database = ("--database", url_of(empty_engine))
    before = run(tmp_path, "db", "check", *database)
    assert before.returncode == 1
    assert "run `embedrouter db upgrade`" in before.stderr
    assert "Traceback" not in before.stderr
    assert run(tmp_path, "db", "upgrade", *database).returncode == 0
    after = run(tmp_path, "db", "check", environment={"EMBEDROUTER_DATABASE_URL": url_of(empty_engine)})
    assert (after.returncode, after.stdout.endswith("is up to date\n")) == (0, True)
    write_long(tmp_path / "tiny", [("q1", "small", 1)])
    imported = json.loads(run(tmp_path, "import", "long", "tiny", "--source", "mine", "--json", *database).stdout)
    assert (imported["source"], imported["n_new"], imported["rejects"]) == ("mine", 1, None)
    listed = json.loads(run(tmp_path, "models", "list", "--json", *database).stdout)
    assert {model["name"]: model["n_outcomes"] for model in listed["models"]} == {"small": 1, "large": 0}


def test_a_model_is_set_shown_and_listed(tmp_path: Path) -> None:
    options = ["--usd-per-1m-input", "2.5", "--capability", "tools", "--capability", "json", "--alias", "org/m"]
    upstream = ["--upstream-url", "http://127.0.0.1:1/v1", "--upstream-model", "m-1", "--upstream-key-env", "M_KEY"]
    assert run(tmp_path, "models", "set", "m", *options, *upstream).stdout == "m: created\n"
    assert run(tmp_path, "models", "set", "m", "--retired").stdout == "m: changed\n"
    shown = json.loads(run(tmp_path, "models", "show", "org/m", "--json").stdout)
    assert shown["name"] == "m"
    assert (shown["usd_per_1m_input"], shown["capabilities"], shown["retired"]) == (2.5, ["json", "tools"], True)
    assert (shown["upstream_url"], shown["upstream_model"], shown["upstream_key_env"]) == (
        "http://127.0.0.1:1/v1",
        "m-1",
        "M_KEY",
    )
    assert run(tmp_path, "models", "set", "m", "--active").returncode == 0
    plain = run(tmp_path, "models", "list").stdout
    assert "2.5" in plain
    assert "retired" not in plain


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("models", "show", "gpt-4p"), "no model gpt-4p: perhaps gpt-4o"),
        (("models", "set", "gpt-4o", "--usd-per-1m-input", "-1"), "a price is 0 or more"),
        (("models", "set", "new", "--alias", "gpt-4o"), "it is another model's name"),
        (("models", "set", "auto"), "no model can be called auto"),
        (("models", "set", "new", "--alias", "auto"), "no model can be called auto"),
        (("models", "set", "m", "--upstream-url", "https://me:pw@h/v1"), "its key is named by --upstream-key-env"),
        (("import", "long", "nowhere"), "nowhere does not exist"),
        (("import", "embedllm", "."), "an EmbedLLM folder holds"),
        (("db", "check", "--database", "oracle://x"), "use sqlite or postgresql"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_status_1(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    run(tmp_path, "models", "set", "gpt-4o")
    done = run(tmp_path, *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "verb",
    [("db", "upgrade"), ("db", "check"), ("import", "long"), ("import", "embedllm")]
    + [("models", verb) for verb in ("list", "set", "show")],
)
def test_every_verb_has_an_example_in_its_help(tmp_path: Path, verb: tuple[str, str]) -> None:
    done = run(tmp_path, *verb, "--help")
    assert done.returncode == 0
    assert f"Example: embedrouter {' '.join(verb)}" in done.stdout


def test_a_stored_url_with_a_password_is_printed_without_it(tmp_path: Path) -> None:
    run(tmp_path, "models", "set", "m")
    engine = open_engine(f"sqlite:///{tmp_path}/var/embedrouter.db")
    with writing(engine) as connection:  # as older releases did
        connection.execute(update(Model).values(upstream_url="https://me:hunter2@host/v1"))
    engine.dispose()
    for words in (("list",), ("list", "--json"), ("show", "m"), ("show", "m", "--json")):
        printed = run(tmp_path, "models", *words).stdout
        assert "https://***@host/v1" in printed
        assert "hunter2" not in printed


def test_config_yaml_names_the_database_of_every_verb_and_its_secrets_need_not_be_set(tmp_path: Path) -> None:
    url = "database_url: sqlite:///elsewhere/${LOGS:-logs}.db"
    (tmp_path / "config.yaml").write_text(f"version: 1\n{url}\nmaster_key: ${{NOT_SET}}\n", encoding="utf-8")
    assert "created" in run(tmp_path, "models", "set", "a").stdout
    assert (tmp_path / "elsewhere/logs.db").is_file()
    assert not (tmp_path / "var").exists()


def test_a_misspelt_database_url_in_config_yaml_is_refused_by_every_verb(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("version: 1\ndatabse_url: sqlite:///a.db\n", encoding="utf-8")
    refused = run(tmp_path, "models", "list")
    assert refused.returncode == 1
    assert "did you mean `database_url`?" in refused.stderr


def test_the_list_of_models_keeps_names_whole(tmp_path: Path) -> None:
    name = "Llama-3.1-405B-Inst-fp8@hyperbolic"
    run(tmp_path, "models", "set", name, "--upstream-url", "https://api.example.com/v1", "--context-window", "131072")
    assert name in run(tmp_path, "models", "list", environment={"COLUMNS": "80"}).stdout


def test_a_model_is_retired_and_restored_by_any_of_its_names(tmp_path: Path) -> None:
    run(tmp_path, "models", "set", "small", "--alias", "org/small")
    assert run(tmp_path, "models", "retire", "org/small").stdout.startswith("small is retired; a running server")
    assert json.loads(run(tmp_path, "models", "show", "small", "--json").stdout)["retired"] is True
    assert run(tmp_path, "models", "retire", "small").stdout == "small is retired already\n"
    assert run(tmp_path, "models", "restore", "small").stdout.startswith("small is in use; a running server")
    assert json.loads(run(tmp_path, "models", "show", "small", "--json").stdout)["retired"] is False
    unknown = run(tmp_path, "models", "retire", "smal")
    assert (unknown.returncode, unknown.stderr) == (1, "embedrouter: no model smal: perhaps small, org/small\n")
