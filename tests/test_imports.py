"""Forgetting an import: what only it brought goes, all else stays, and the same files bring it back."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from data import queries, store
from data.errors import EmbedRouterError
from data.importers.long import import_folder
from data.imports import find_imports, forget_imports, list_imports, plan_forgetting
from data.locks import LOGS, holding, sharing
from data.observations import NewQuestion, Observation, prompt_sha256
from data.promotions import add_artifact, promote
from tests.conftest import url_of
from tests.logs import QUESTIONS, contents, observations, write_long
from tests.planted import planted_log
from tests.stored import pick, relabel, store_log
from training.jobs import retrain

ROOT = Path(__file__).parents[1]
STORY = "A story about a farmer, his seventeen sheep, a river, an old wooden gate and the slowly sinking sun. " * 2
GOOD = [("q1", "small", 0), ("q1", "large", 1), ("q2", "small", 1)]
MORE = [*QUESTIONS, ("q4", "Which bird can fly backwards for a while?", "biology", "train")]
BAD = [("q1", "small", 1), ("q4", "small", 1), ("q4", "new", 0)]


def snapshot(engine: Engine) -> dict[str, object]:
    """All that the logs say, without ids and times."""
    log = queries.read_log(engine)
    return {
        "outcomes": {row[:4] + row[5:] for row in observations(engine)},
        "questions": sorted(log.questions[["question_id", "prompt", "benchmark", "split"]].itertuples(index=False)),
        "models": [(row.name, row.usd_per_1m_input, row.n_outcomes) for row in queries.pool_models(engine)],
        "imports": [(row.source, row.n_new, row.n_rejected) for row in list_imports(engine)],
    }


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """An honest log and a bad one, which shares a question and a model with it."""
    good = write_long(tmp_path / "good", GOOD)
    models = [("small", "0.1", "0.2"), ("new", "1", "2")]
    return good, write_long(tmp_path / "bad", BAD, questions=MORE, models=models)


def test_what_only_an_import_brought_goes_and_the_same_files_bring_it_back(
    engine: Engine, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    good, bad = folders
    import_folder(engine, good)
    before, stood = contents(engine), snapshot(engine)
    import_folder(engine, bad)
    both = snapshot(engine)
    (one,) = find_imports(engine, "long:bad")
    (new,) = store.add_questions(engine, [NewQuestion("q4", MORE[3][1])])
    store.save_question_vectors(engine, "f", {new.id: np.ones(3, np.float32)})
    planned = plan_forgetting(engine, [one.id])
    assert planned == forget_imports(engine, [one.id])
    assert (planned.n_outcomes, planned.n_questions, planned.n_vectors, planned.models) == (3, 1, 1, ("new",))
    assert snapshot(engine) == stood
    after = contents(engine)
    assert {name: len(rows) for name, rows in after.items()} == {name: len(rows) for name, rows in before.items()}
    assert after["outcomes"] == before["outcomes"]
    summary = import_folder(engine, bad)
    assert (summary.n_new, summary.n_repeated, summary.n_new_questions, summary.n_new_models) == (3, 0, 1, 1)
    assert snapshot(engine) == both


def test_what_somebody_set_of_a_model_stays(engine: Engine, folders: tuple[Path, Path]) -> None:
    store.set_model(engine, "new", usd_per_1m_input=9)
    import_folder(engine, folders[1])
    store.set_model(engine, "small", upstream_url="http://127.0.0.1:9/v1")
    (one,) = list_imports(engine)
    assert forget_imports(engine, [one.id]).models == ()
    assert [(row.name, row.n_outcomes) for row in queries.pool_models(engine)] == [("new", 0), ("small", 0)]


def test_questions_that_live_outcomes_refer_to_stay(engine: Engine, folders: tuple[Path, Path]) -> None:
    import_folder(engine, folders[1])
    (question,) = store.add_questions(engine, [NewQuestion("q4", MORE[3][1])])
    model = store.ensure_models(engine, ["small"])["small"]
    store.record_outcomes(engine, "live", [Observation(question, model, 1)])
    (one,) = list_imports(engine)
    gone = forget_imports(engine, [one.id])
    assert (gone.n_outcomes, gone.n_questions) == (3, 1)
    assert queries.read_log(engine).cells["label"].tolist() == [1.0]


def test_a_group_that_loses_its_founder_stays_together(engine: Engine, tmp_path: Path) -> None:
    prompts = sorted(
        (STORY, STORY + "Why?", STORY + "When?"), key=prompt_sha256, reverse=True
    )  # the founder comes last
    twins = [(name, prompt, "x", "test") for name, prompt in zip("cba", prompts, strict=True)]
    import_folder(engine, write_long(tmp_path / "log", [(name, "small", 1) for name in "cba"], questions=twins))
    others = store.add_questions(engine, [NewQuestion(name, prompt) for name, prompt, *_ in twins[:2]])
    model = store.ensure_models(engine, ["small"])["small"]
    store.record_outcomes(engine, "live", [Observation(question, model, 1) for question in others])
    (one,) = list_imports(engine)
    assert forget_imports(engine, [one.id]).n_questions == 1
    other = [("d", "Something that has nothing to do with any of it", "x", "train"), (*twins[2][:3], "")]
    import_folder(engine, write_long(tmp_path / "more", [("d", "small", 1), ("a", "small", 1)], questions=other))
    questions = queries.read_log(engine).questions.set_index("question_id")
    assert questions["split"].to_dict() == {"c": "test", "b": "test", "d": "train", "a": "test"}
    groups = questions["group"].to_dict()
    assert groups["a"] == groups["b"] == groups["c"] != groups["d"]


def test_an_import_that_a_later_one_of_its_source_repeated_is_told(engine: Engine, tmp_path: Path) -> None:
    import_folder(engine, write_long(tmp_path / "log", GOOD))
    edited = [("q1", "small", 1), *GOOD[1:]]
    import_folder(engine, write_long(tmp_path / "log", edited))
    first, second = list_imports(engine)
    gone = forget_imports(engine, [first.id])
    assert (gone.n_outcomes, gone.restated_by) == (3, (second.id,))
    summary = import_folder(engine, tmp_path / "log")
    assert (summary.n_new, summary.n_repeated) == (2, 1)
    assert len(observations(engine)) == 3


def test_outcomes_never_get_an_id_that_a_champion_has_seen(engine: Engine, folders: tuple[Path, Path]) -> None:
    import_folder(engine, folders[0])
    watermark = queries.read_log(engine).watermark
    add_artifact(
        engine,
        "a1",
        path="/nowhere",
        encoder_fingerprint="e",
        data_fingerprint="d",
        outcome_watermark=watermark,
        metrics={},
    )
    promote(engine, "a1", "manual", "a test")
    (one,) = list_imports(engine)
    assert forget_imports(engine, [one.id]).champion == "a1"
    import_folder(engine, folders[1])
    assert len(queries.additions(engine, watermark)) == len(BAD)


def test_after_forgetting_a_bad_log_a_retrain_is_not_refused(engine: Engine, tmp_path: Path) -> None:
    log = planted_log(300, 4).log
    store_log(engine, pick(log, np.arange(200)), "first")
    champion = retrain(engine, tmp_path).champion_id
    bad = relabel(log, 1 - log.cells["label"].to_numpy())
    names, ids = log.models["model_name"].tolist(), log.questions["question_id"].tolist()
    cells = zip(*(bad.cells[name].tolist() for name in ("question", "model", "label")), strict=True)
    columns = ("question_id", "prompt", "benchmark", "split")
    folder = write_long(
        tmp_path / "flipped",
        [(ids[question], names[model], int(label)) for question, model, label in cells],
        questions=list(log.questions[list(columns)].itertuples(index=False)),
        models=[(name, "", "") for name in names],
    )
    import_folder(engine, folder)
    assert retrain(engine, tmp_path).status == "refused"
    store_log(engine, pick(log, np.arange(200, 300)), "honest")
    assert retrain(engine, tmp_path).status == "refused", "whatever comes after it"
    forget_imports(engine, [row.id for row in find_imports(engine, "long:flipped")])
    ended = retrain(engine, tmp_path)
    assert (ended.status, ended.champion_id != champion) == ("promoted", True), ended.reasons


def test_nothing_is_forgotten_while_somebody_needs_the_logs(engine: Engine, folders: tuple[Path, Path]) -> None:
    import_folder(engine, folders[0])
    (one,) = list_imports(engine)
    before = contents(engine)
    with sharing(engine, LOGS), sharing(engine, LOGS), pytest.raises(EmbedRouterError, match="runs on this database"):
        forget_imports(engine, [one.id])
    assert contents(engine) == before
    importing = threading.Thread(target=import_folder, args=(engine, folders[1]))
    with holding(engine, LOGS) as alone:
        assert alone
        importing.start()
        importing.join(0.5)
        assert contents(engine) == before, "an import waits"
    importing.join(60)
    assert len(list_imports(engine)) == 2
    with holding(engine, LOGS) as alone:
        assert alone, "an import that ended holds nothing"


def test_forgetting_is_all_or_nothing(engine: Engine, folders: tuple[Path, Path]) -> None:
    import_folder(engine, folders[0])
    (one,) = list_imports(engine)
    before = contents(engine)
    with pytest.raises(EmbedRouterError, match="import 99 is not there any more"):
        forget_imports(engine, [one.id, 99])
    assert contents(engine) == before


def test_an_import_is_found_by_its_id_or_its_source(engine: Engine, folders: tuple[Path, Path]) -> None:
    import_folder(engine, folders[0])
    (one,) = list_imports(engine)
    import_folder(engine, folders[1], source=str(one.id))
    with pytest.raises(EmbedRouterError, match="give the ids one by one"):
        find_imports(engine, str(one.id))
    assert find_imports(engine, "long:good") == [one]
    with pytest.raises(EmbedRouterError, match="perhaps long:good"):
        find_imports(engine, "long:god")


def verb(engine: Engine, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "embedrouter.py"), "imports", *words, "--database", url_of(engine)]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def test_the_verbs_list_refuse_to_guess_and_forget(engine: Engine, folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert "`embedrouter import`" in verb(engine, tmp_path, "list").stdout
    import_folder(engine, folders[0])
    import_folder(engine, folders[1])
    listed = json.loads(verb(engine, tmp_path, "list", "--json").stdout)["imports"]
    assert [(row["source"], row["n_new"]) for row in listed] == [("long:good", 3), ("long:bad", 3)]
    assert "long:bad" in verb(engine, tmp_path, "list").stdout
    before = contents(engine)
    asked = verb(engine, tmp_path, "forget", "long:bad")
    assert asked.returncode == 1
    assert asked.stderr == "embedrouter: nothing was forgotten: say --yes to do it without being asked\n"
    assert "known by nothing else: new" in asked.stdout
    assert contents(engine) == before
    done = verb(engine, tmp_path, "forget", str(listed[1]["id"]), "--yes", "--json")
    assert json.loads(done.stdout)["models"] == ["new"]
    assert [row.source for row in list_imports(engine)] == ["long:good"]
    assert "forgotten:\n" in verb(engine, tmp_path, "forget", "long:good", "--yes").stdout
    assert observations(engine) == set()


@pytest.mark.parametrize(("answer", "n_left"), [("n", 1), ("y", 0)])
def test_on_a_terminal_it_asks(sqlite_engine: Engine, folders: tuple[Path, Path], answer: str, n_left: int) -> None:
    import_folder(sqlite_engine, folders[0])
    ours, theirs = pty.openpty()
    command = [sys.executable, str(ROOT / "embedrouter.py"), "imports", "forget", "long:good"]
    command += ["--database", url_of(sqlite_engine)]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        os.write(ours, f"{answer}\n".encode())
        out, _ = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert "Forget it?" in out
    assert "outcomes           3" in out
    assert len(list_imports(sqlite_engine)) == n_left


def test_a_process_that_is_killed_while_it_imports_holds_nothing(engine: Engine, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from data.database import open_engine\n"
        "from data.locks import LOGS, sharing\n"
        "with sharing(open_engine(sys.argv[1]), LOGS):\n"
        "    print('shared', flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, url_of(engine)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "shared\n"
        with holding(engine, LOGS) as alone:
            assert not alone
        process.send_signal(signal.SIGKILL)
    for _ in range(600):
        with holding(engine, LOGS) as alone:
            if alone:
                return
        threading.Event().wait(0.05)  # PostgreSQL notices a moment later
    raise AssertionError("a dead process holds the logs")
