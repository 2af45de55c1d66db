"""Evidence: the labelled questions nearest to a prompt, exactly, with each model's record on them."""

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from data.database import ready_engine
from data.observations import NewQuestion, Observation
from data.queries import read_log
from data.splits import group_questions
from data.store import add_questions, ensure_models, record_outcomes
from embedrouter import app
from router.artifact import Artifact
from router.encoder.lsa import LsaEncoder
from router.errors import EncoderError
from router.evidence import Evidence, build_evidence, load_evidence, save_evidence
from router.evidence_index import EvidenceIndex, read_evidence
from router.evidence_search import Exact
from router.service import Service
from router.spool import hold
from tests.serving import A_POEM, A_SUM, POEMS, SUMS, Gateway, entry, planted_artifact, register, run_gateway, settings
from tests.upstreams import run_upstream
from tests.waiting import until

FORECASTS = {"calculator": (0.9, 0.3), "poet": (0.2, 0.8)}
UNLABELLED = "numbers nobody was asked about"


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return planted_artifact(tmp_path / "var" / "artifacts", FORECASTS)


@pytest.fixture
def logs(tmp_path: Path, artifact: Artifact) -> Iterator[Engine]:
    """Three sums and three poems: the calculator was right on sums, the poet on poems and once on the first sum."""
    engine = ready_engine(f"sqlite:///{tmp_path}/var/embedrouter.db")
    register(engine, artifact)
    kinds = [("sums", prompt) for prompt in SUMS] + [("poems", prompt) for prompt in POEMS] + [("none", UNLABELLED)]
    stated = [NewQuestion(f"q{i}", prompt, kind, split="train") for i, (kind, prompt) in enumerate(kinds)]
    questions = add_questions(engine, stated)
    group_questions(engine)
    models = ensure_models(engine, list(FORECASTS))
    seen = [
        Observation(question, models[name], int((name == "calculator") == (kind == "sums")))
        for question, (kind, _) in zip(questions, kinds, strict=True)
        for name in FORECASTS
        if kind != "none"
    ]
    record_outcomes(engine, "test", [*seen, Observation(questions[0], models["poet"], 1)])
    yield engine
    engine.dispose()


def index(vectors: list[list[float]]) -> Evidence:
    """An index of bare vectors."""
    n = len(vectors)
    array = np.array(vectors, dtype=np.float32)
    length = np.linalg.norm(array, axis=1, keepdims=True)
    return Evidence(
        encoder_fingerprint="f",
        watermark=1,
        n_left_out=0,
        model_names=("m",),
        questions=[(f"q{i}", "b", "train", "p") for i in range(n)],
        search=Exact(np.divide(array, length, out=np.zeros_like(array), where=length > 0)),
        starts=np.arange(n + 1),
        models=np.zeros(n, dtype=np.int32),
        labels=np.ones(n, dtype=np.float32),
        counts=np.ones(n, dtype=np.int32),
    )


def test_the_nearest_are_exactly_those_of_the_greatest_cosine() -> None:
    rng = np.random.default_rng(0)
    vectors, query = rng.normal(size=(500, 16)), rng.normal(size=16)
    cosine = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    found = index(vectors.tolist()).nearest(query.astype(np.float32), 100)
    assert [neighbour.question_id for neighbour in found] == [f"q{i}" for i in np.argsort(-cosine)[:100]]
    assert [neighbour.similarity for neighbour in found] == pytest.approx(
        np.sort(cosine)[::-1][:100].tolist(), abs=1e-5
    )


def test_ties_go_to_the_older_question_even_at_the_edge() -> None:
    found = index([[0.0, 1.0], *[[float(i), 0.0] for i in range(1, 500)]]).nearest(
        np.array([1, 0], dtype=np.float32), 100
    )
    assert [neighbour.question_id for neighbour in found] == [f"q{i}" for i in range(1, 101)]


def test_a_vector_without_direction_has_no_neighbours_and_few_questions_are_all_there_is() -> None:
    two = index([[1, 0], [0, 1]])
    assert two.nearest(np.zeros(2, dtype=np.float32), 5) == []
    assert len(two.nearest(np.ones(2, dtype=np.float32), 5)) == 2


def test_an_index_holds_what_the_logs_say_of_labelled_questions(logs: Engine, artifact: Artifact) -> None:
    evidence = build_evidence(read_log(logs), artifact.encoder)
    assert evidence.n_questions == 6
    (first,) = evidence.nearest(artifact.encoder.encode([SUMS[0]])[0], 1)
    assert (first.question_id, first.benchmark, first.prompt) == ("q0", "sums", SUMS[0])
    assert first.similarity == pytest.approx(1.0, abs=1e-5)
    assert first.as_json()["models"] == {
        "calculator": {"correct": 1.0, "n": 1},
        "poet": {"correct": 0.5, "n": 2},
    }


@pytest.fixture
def without_faiss(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As where the extra is not installed, until it is undone."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    return monkeypatch


@pytest.mark.usefixtures("without_faiss")
def test_beyond_its_limit_an_index_holds_the_newest_and_names_the_extra_that_holds_all(
    logs: Engine, artifact: Artifact
) -> None:
    evidence = build_evidence(read_log(logs), artifact.encoder, max_questions=2)
    assert ([question[0] for question in evidence.questions], evidence.n_left_out) == (["q4", "q5"], 4)
    assert (evidence.summary()["search"], evidence.summary()["recall_at_10"]) == ("exact", 1.0)
    assert evidence.note == (
        "the 4 oldest labelled questions are left out: pip install 'embedrouter[faiss]' indexes them too"
    )
    found = evidence.nearest(artifact.encoder.encode([A_POEM])[0], 5)
    assert {record.model: record.label for record in found[0].records} == {"calculator": 0.0, "poet": 1.0}


def test_beyond_its_limit_faiss_indexes_all_with_the_same_answers(logs: Engine, artifact: Artifact) -> None:
    exact = build_evidence(read_log(logs), artifact.encoder, max_questions=6)
    every = build_evidence(read_log(logs), artifact.encoder, max_questions=5)
    assert (exact.search.method, every.search.method) == ("exact", "faiss")
    assert (every.n_questions, every.n_left_out, every.note) == (6, 0, None)
    query = artifact.encoder.encode([A_SUM])[0]
    assert [near.as_json() for near in every.nearest(query, 6)] == [near.as_json() for near in exact.nearest(query, 6)]


def test_a_kept_index_is_built_again_when_faiss_comes_or_goes_or_the_limit_moves(
    logs: Engine, artifact: Artifact, tmp_path: Path, without_faiss: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.safetensors"

    def read(max_questions: int) -> tuple[int, str]:
        evidence = read_evidence(logs, artifact, path, max_questions)
        return evidence.n_questions, evidence.search.method

    assert read(2) == (2, "exact")
    assert read(3) == (3, "exact")
    without_faiss.undo()
    assert read(3) == (6, "faiss")
    made = path.stat().st_mtime_ns
    assert read(2) == (6, "faiss")
    assert path.stat().st_mtime_ns == made
    without_faiss.setitem(sys.modules, "faiss", None)
    assert load_evidence(path, artifact.encoder.fingerprint) is None
    assert read(2) == (2, "exact")
    assert read(6) == (6, "exact")


def test_vectors_that_are_known_are_not_made_again(logs: Engine, artifact: Artifact) -> None:
    log = read_log(logs)
    known = {int(key): np.full(artifact.encoder.dim, 2.0, dtype=np.float32) for key in log.questions["key"]}
    evidence = build_evidence(log, artifact.encoder, known=known)
    assert isinstance(evidence.search, Exact)
    assert np.allclose(np.linalg.norm(evidence.search.vectors, axis=1), 1)
    assert np.allclose(evidence.search.vectors, evidence.search.vectors[0])


def test_an_index_comes_back_from_its_file_for_its_encoder_only(
    logs: Engine, artifact: Artifact, tmp_path: Path
) -> None:
    evidence = build_evidence(read_log(logs), artifact.encoder)
    save_evidence(evidence, tmp_path / "kept.safetensors")
    back = load_evidence(tmp_path / "kept.safetensors", artifact.encoder.fingerprint)
    assert back is not None
    query = artifact.encoder.encode([A_SUM])[0]
    assert back.nearest(query, 6) == evidence.nearest(query, 6)
    assert load_evidence(tmp_path / "kept.safetensors", "another") is None
    (tmp_path / "kept.safetensors").write_bytes(b"half of a file")
    assert load_evidence(tmp_path / "kept.safetensors", artifact.encoder.fingerprint) is None
    assert [path.name for path in tmp_path.glob(".kept*")] == []


KILLED_WHILE_IT_SAVES = """
import os, signal, sys
from pathlib import Path
from router import evidence
from tests.test_evidence import index

def save_file(arrays, path, metadata):
    Path(path).with_name(".tmpAbC123").write_bytes(b"half of it")  # safetensors writes beside what it will be
    os.kill(os.getpid(), signal.SIGKILL)

evidence.save_file = save_file
evidence.save_evidence(index([[1.0, 0.0]]), Path(sys.argv[1]))
"""


def test_what_a_process_leaves_that_is_killed_while_it_saves_goes_with_the_next_save(tmp_path: Path) -> None:
    path = tmp_path / "evidence.safetensors"
    command = [sys.executable, "-c", KILLED_WHILE_IT_SAVES, str(path)]
    assert subprocess.run(command, cwd=Path(__file__).parents[1], timeout=120).returncode == -signal.SIGKILL
    assert len(list(tmp_path.rglob(".tmp*"))) == 1
    save_evidence(index([[1.0, 0.0]]), path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_another_process_still_saves_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "evidence.safetensors"
    saving = tmp_path / ".evidence.safetensors-another"
    saving.mkdir()
    lock = hold(saving)
    assert lock is not None
    save_evidence(index([[1.0, 0.0]]), path)
    assert sorted(tmp_path.iterdir()) == [saving, path]
    lock.close()
    save_evidence(index([[1.0, 0.0]]), path)
    assert list(tmp_path.iterdir()) == [path]


def test_stopping_while_the_build_ends_is_no_error(logs: Engine, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(60)
    looks = iter([ended])

    class Ending(EvidenceIndex):
        """Its thread forgets the process as soon as it was looked at."""

        def __getattribute__(self, name: str) -> object:
            return next(looks, None) if name == "_building" else super().__getattribute__(name)

    without_champion: Any = SimpleNamespace(current=SimpleNamespace(artifact=None))
    stopping = Ending(logs, without_champion, tmp_path, max_questions=10)
    stopping.start()
    stopping.stop()


@pytest.fixture
def gateway(logs: Engine) -> Iterator[Gateway]:
    with run_upstream() as upstream:
        pool = [entry(name, upstream.url("good")) for name in FORECASTS]
        with run_gateway(logs, settings(pool, master_key="k")) as running:
            until(lambda: get(running, text=A_SUM).json()["n_questions"] > 0)
            yield running


def test_beyond_its_limit_a_server_says_how_it_searched_and_what_that_finds(logs: Engine) -> None:
    with run_gateway(logs, settings(master_key="k", evidence={"max_questions": 2})) as running:
        until(lambda: get(running, text=A_POEM, k=3).json()["n_questions"] > 0)
        found = get(running, text=A_POEM, k=3).json()
    assert {key: found[key] for key in ("n_questions", "n_left_out", "search", "recall_at_10", "note")} == {
        "n_questions": 6,
        "n_left_out": 0,
        "search": "faiss",
        "recall_at_10": 1.0,
        "note": None,
    }
    assert [neighbour["benchmark"] for neighbour in found["nearest"]] == ["poems"] * 3


def get(gateway: Gateway, key: str = "k", **parameters: Any) -> httpx.Response:
    return httpx.get(
        f"{gateway.base_url}/evidence", params=parameters, headers={"authorization": f"Bearer {key}"}, timeout=20
    )


def ask(gateway: Gateway, path: str, prompt: str, debug: str = "false", **more: Any) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], **more}
    headers = {"authorization": "Bearer k", "x-embedrouter-debug": debug}
    return httpx.post(f"{gateway.base_url}{path}", json=body, headers=headers, timeout=20)


def test_evidence_explains_choices_on_every_way(gateway: Gateway, artifact: Artifact) -> None:
    found = get(gateway, text=A_POEM, k="0000000003").json()
    assert (found["n_questions"], found["encoder"]) == (6, artifact.encoder.fingerprint)
    assert [neighbour["benchmark"] for neighbour in found["nearest"]] == ["poems"] * 3

    routed = ask(gateway, "/route", A_SUM).json()
    assert [near["benchmark"] for near in routed["evidence"]["nearest"][:3]] == ["sums"] * 3
    assert routed["evidence"]["nearest"][0]["models"]["calculator"]["correct"] == 1.0
    assert {flip["model"] for flip in routed["would_flip"]} == {"poet"}
    assert (routed["artifact"], routed["encoder"]) == (artifact.id, artifact.encoder.fingerprint)

    plain = ask(gateway, "/chat/completions", A_SUM)
    assert "embedrouter" not in plain.json()
    debugged = ask(gateway, "/chat/completions", A_SUM, debug="true")
    assert debugged.json()["choices"] == plain.json()["choices"]
    explained = debugged.json()["embedrouter"]
    assert explained["id"] == debugged.headers["x-embedrouter-decision-id"]
    assert explained["evidence"]["nearest"] == routed["evidence"]["nearest"]

    streamed = ask(gateway, "/chat/completions", A_SUM, debug="true", stream=True).text
    comment, _, rest = streamed.partition("\n\n")
    assert json.loads(comment.removeprefix(": embedrouter "))["model"] == "calculator"
    assert rest == ask(gateway, "/chat/completions", A_SUM, stream=True).text


@pytest.mark.parametrize("fault", ["it raises", "it hangs"])
def test_an_answer_outlives_its_explanation(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    async def broken(*_: object) -> dict[str, object]:
        if fault == "it hangs":
            await asyncio.Event().wait()
        raise RuntimeError(fault)

    plain = [ask(gateway, "/chat/completions", A_SUM, stream=stream) for stream in (False, True)]
    monkeypatch.setattr(Service, "evidence", broken)
    monkeypatch.setattr("router.api.answering.EXPLAIN_S", 0.1 if fault == "it hangs" else 60.0)
    with caplog.at_level(logging.ERROR, "router.api.answering"):
        whole = ask(gateway, "/chat/completions", A_SUM, debug="true").json()
        comment, _, rest = ask(gateway, "/chat/completions", A_SUM, debug="true", stream=True).text.partition("\n\n")
    for note in (whole.pop("embedrouter"), json.loads(comment.removeprefix(": embedrouter "))):
        assert note.keys() == {"note"}
    assert (whole, rest) == (plain[0].json(), plain[1].text)
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({}, "text"),
        ({"text": " "}, "text"),
        *(
            ({"text": "a", "k": k}, "k")
            for k in ("", "0", "²", "-1", "101", "000000001" + "9" * 8, "0" * 9 + "1" * 5000)
        ),
    ],
)
def test_what_is_wrong_with_a_search_is_named(gateway: Gateway, parameters: dict[str, str], param: str) -> None:
    answer = get(gateway, **parameters)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert get(gateway, key="wrong", text="a").status_code == 401


def test_search_says_how_it_searched_and_what_is_left_out(
    logs: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_faiss: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("EMBEDROUTER_DATABASE_URL", "EMBEDROUTER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config.yaml").write_text("version: 1\nevidence: {max_questions: 4}\n")
    said = CliRunner().invoke(app, ["search", A_SUM]).stdout
    assert said.startswith("4 labelled questions (exact, recall@10 1.000), artifact ")
    assert "\nthe 2 oldest labelled questions are left out: pip install 'embedrouter[faiss]' indexes them too\n" in said

    without_faiss.delitem(sys.modules, "faiss")
    said = CliRunner().invoke(app, ["search", A_SUM]).stdout
    assert said.startswith("6 labelled questions (faiss, recall@10 1.000), artifact ")
    assert "left out" not in said
    shown = json.loads(CliRunner().invoke(app, ["search", A_SUM, "--json"]).stdout)
    assert (shown["search"], shown["recall_at_10"], shown["n_left_out"], shown["note"]) == ("faiss", 1.0, 0, None)


def test_route_shows_evidence_where_it_is_indexed_and_what_would_flip_the_choice(
    logs: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("EMBEDROUTER_DATABASE_URL", "EMBEDROUTER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    pool = [entry(name, "http://127.0.0.1:9/v1") for name in FORECASTS]
    (tmp_path / "config.yaml").write_text(json.dumps({"version": 1, "pool": pool}))

    def route(*options: str) -> str:
        said = CliRunner().invoke(app, ["route", SUMS[0], *options])
        assert said.exit_code == 0, said.output
        return said.stdout

    assert "nearest of" not in route()
    assert json.loads(route("--json"))["evidence"]["nearest"] == []
    said = route("--nearest", "1")
    assert "nearest of 6 labelled questions:\n1.000  add these numbers two plus three\n" in said
    assert "sums/q0: 1 of 2 models right, calculator among them\n" in said
    assert "poet would be chosen if P(correct) of calculator were 0." in said
    assert said.count("poet would be chosen if") == 2
    assert route().count("plus") >= 2  # it is kept
    assert "nearest of" not in route("--nearest", "0")
    shown = json.loads(route("--json"))["evidence"]
    assert shown["nearest"][0]["question_id"] == "q0"
    assert (len(shown["nearest"]), shown["search"]) == (3, "exact")

    def away(*_: object) -> None:
        raise EncoderError("away")

    monkeypatch.setattr(LsaEncoder, "encode", away)  # as a remote one may be; this one always answers
    assert "note: the encoder failed" in route()


def test_search_and_replay_as_verbs(logs: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("EMBEDROUTER_DATABASE_URL", "EMBEDROUTER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    shown = json.loads(CliRunner().invoke(app, ["search", A_POEM, "-k", "2", "--json"]).stdout)
    assert [near["benchmark"] for near in shown["nearest"]] == ["poems", "poems"]
    for _ in range(2):  # the second time from the file that the first kept
        said = CliRunner().invoke(app, ["search", SUMS[0], "-k", "1"]).stdout
        assert "1.000  sums/q0 (train)" in said
        assert "right: calculator\n" in said
        assert "wrong: poet\n" in said

    with run_upstream() as upstream:
        pool = [entry(name, upstream.url("good")) for name in FORECASTS]
        quick = {"flush_interval_s": 0.02, "prompts": "full"}
        with run_gateway(logs, settings(pool, master_key="k", recording=quick)) as gateway:
            answer = ask(gateway, "/chat/completions", A_SUM)
            gateway.decision(answer.headers["x-request-id"])
    decision_id = answer.headers["x-embedrouter-decision-id"]
    again = CliRunner().invoke(app, ["replay", decision_id])
    assert again.exit_code == 0, again.stdout
    assert "from its prompt: calculator, P(correct) within 0\nthe same choice" in again.stdout
    assert json.loads(CliRunner().invoke(app, ["replay", decision_id, "--json"]).stdout)["same"] is True
    assert "no decision 'nonesuch' is recorded" in str(CliRunner().invoke(app, ["replay", "nonesuch"]).exception)
