"""Recording: off the path, in batches, through a database that goes away, and never twice."""

# The whole of it, with a PostgreSQL that is really stopped and a server that is really killed: test_outages.py.

import errno
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Engine, text

from data.database import ready_engine
from data.feedback import NewFeedback
from data.observations import prompt_sha256
from data.queries import decisions
from data.store import add_decisions
from data.tables import utc_now
from router import record
from router.decision import Decision, Option
from router.errors import Attempt
from router.policy import Policy
from router.pool import PoolEntry
from router.record import Recorder
from router.settings import Recording
from router.spool import Record, Spool
from tests.waiting import until

QUICK = Recording(flush_interval_s=0.02)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = ready_engine(f"sqlite:///{tmp_path}/record.db")
    yield engine
    engine.dispose()


def decision(request_id: str = "r") -> Decision:
    first = Option(PoolEntry("first"), 0.9, 0.01, 1.0)
    second = Option(PoolEntry("second", usd_per_1m_input=1.0, usd_per_1m_output=2.0), 0.5, None, 0.0)
    made = Decision(request_id, "artifact", Policy("cheapest", min_p_correct=0.8), (first, second), note="why")
    made.attempts += [Attempt("first", None, "refused", 0.1), Attempt("second", 200, None, 0.2)]
    made.answered = second
    made.count({"usage": {"prompt_tokens": 1000, "completion_tokens": 10}})
    made.close(200)
    return made


def test_a_decision_is_written_as_it_was(engine: Engine, tmp_path: Path) -> None:
    recorder = Recorder(engine, QUICK, tmp_path)
    recorder.start()
    made = decision("request-1")
    recorder.record(made)
    recorder.stop()
    (row,) = decisions(engine)
    assert (row["id"], row["request_id"], row["artifact_id"]) == (made.id, "request-1", "artifact")
    assert (row["policy"], row["policy_settings"]) == ("cheapest", {"min_p_correct": 0.8, "note": "why"})
    assert (row["first_choice"], row["answered_by"], row["p_correct"]) == ("first", "second", 0.5)
    assert row["candidates"] == [
        {"model": "first", "p_correct": 0.9, "expected_cost_usd": 0.01, "propensity": 1.0},
        {"model": "second", "p_correct": 0.5, "expected_cost_usd": None, "propensity": 0.0},
    ]
    assert row["attempts"] == [
        {"model": "first", "status": None, "error": "refused", "latency_s": 0.1},
        {"model": "second", "status": 200, "error": None, "latency_s": 0.2},
    ]
    assert row["cost_usd"] == pytest.approx((1000 * 1 + 10 * 2) / 1e6)
    assert row["created_at"] == made.created_at


def test_stopping_writes_what_is_left(engine: Engine, tmp_path: Path) -> None:
    recorder = Recorder(engine, Recording(flush_interval_s=60), tmp_path)
    recorder.start()
    for _ in range(1234):
        recorder.record(decision())
    recorder.stop()
    assert len(decisions(engine, limit=5000)) == recorder.n_written == 1234


def test_while_the_database_is_away_decisions_wait_and_then_are_written_once(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE decisions RENAME TO elsewhere"))
    recorder = Recorder(engine, QUICK, tmp_path)
    recorder.start()
    with caplog.at_level(logging.WARNING, logger="router.record"):
        recorder.record(decision("secret-free"))
        until(lambda: "wait for the database" in caplog.text)
    recorder.record(decision())  # returns, though the database is away
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO decisions"))
    until(lambda: recorder.n_written == 2)
    recorder.stop()
    assert len(decisions(engine)) == 2
    assert recorder.n_dropped == 0


def test_a_full_queue_drops_counts_and_says_so(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(engine, Recording(queue_size=3, flush_interval_s=60), tmp_path)
    for _ in range(5):
        recorder.record(decision())
    assert recorder.n_dropped == 2
    assert "records dropped, 1 since the start: the queue is full" in caplog.text
    recorder.start()
    recorder.stop()
    assert len(decisions(engine)) == 3


def test_a_row_that_the_database_refuses_is_set_aside_and_does_not_take_its_batch_with_it(
    engine: Engine, tmp_path: Path
) -> None:
    recorder = Recorder(engine, Recording(flush_interval_s=60), tmp_path)
    bad = decision()
    bad.status = None  # type: ignore[assignment]  # the column is NOT NULL
    for made in (decision(), bad, decision()):
        recorder.record(made)
    recorder.start()
    recorder.stop()
    assert (len(decisions(engine)), recorder.n_written, recorder.n_dropped) == (2, 2, 1)
    (line,) = (tmp_path / "spool" / "refused.jsonl").read_text().splitlines()
    assert Record.from_line(line).row["id"] == bad.id


def test_a_decision_that_cannot_be_written_does_not_end_the_recording(engine: Engine, tmp_path: Path) -> None:
    recorder = Recorder(engine, QUICK, tmp_path)
    recorder.start()
    bad = decision()
    bad.input_tokens = 2**63  # more than SQLite can hold: its driver raises OverflowError
    recorder.record(bad)
    until(lambda: recorder.n_dropped == 1)
    recorder.record(decision())
    until(lambda: recorder.n_written == 1)
    recorder.stop()


@pytest.mark.parametrize(
    ("prompts", "text", "digest"),
    [
        ("off", None, None),
        ("hashed", None, prompt_sha256("what is one ? \N{REPLACEMENT CHARACTER}")),
        (
            "full",
            "what is one ? \N{REPLACEMENT CHARACTER}",
            prompt_sha256("what is one ? \N{REPLACEMENT CHARACTER}"),
        ),
    ],
)
def test_prompts_are_written_as_configured_and_so_that_every_database_takes_them(
    engine: Engine, tmp_path: Path, prompts: str, text: str | None, digest: str | None
) -> None:
    recorder = Recorder(engine, Recording.model_validate({"prompts": prompts}), tmp_path)
    made = decision()
    made.prompt = "what is one \ud800 \0"
    recorder.record(made)
    recorder.start()
    recorder.stop()
    (row,) = decisions(engine)
    assert (row["prompt"], row["prompt_sha256"]) == (text, digest)


def test_what_a_killed_process_left_on_the_disk_is_written_by_the_next(engine: Engine, tmp_path: Path) -> None:
    killed = Spool(tmp_path / "spool", max_bytes=10**6)
    made = [decision(), decision()]
    killed.write([Record("decision", one.as_row()) for one in made])
    killed.write([Record("decision", made[1].as_row())])  # twice on the disk, once in SQL
    recorder = Recorder(engine, QUICK, tmp_path)
    recorder.start()
    time.sleep(0.2)
    assert decisions(engine) == []  # it lives: its records are its own
    for lock in killed._locks.values():
        lock.close()  # as its end does
    recorder.stop()
    after = Recorder(engine, QUICK, tmp_path)
    after.start()
    until(lambda: after.n_written == 3)
    after.stop()
    assert {row["id"] for row in decisions(engine)} == {one.id for one in made}
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_segment_that_cannot_be_read_keeps_no_other_waiting_and_is_written_once_it_can_be(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(record, "UNREADABLE_S", 0.02)
    killed = Spool(tmp_path / "spool", max_bytes=10**6)
    made = [decision(), decision()]
    broken, _ = (killed.write([Record("decision", one.as_row())]).path for one in made)
    killed.close()
    read, tries, mended = Path.read_text, [], Event()

    def read_text(path: Path, *args: Any, **kwargs: Any) -> str:
        if path == broken:
            tries.append(path)
            if not mended.is_set():
                raise OSError(errno.EIO, "Input/output error")
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    recorder = Recorder(engine, QUICK, tmp_path)
    recorder.start()
    recorder.record(decision())
    until(lambda: recorder.n_written == 2 and len(tries) > 2 and recorder.n_spooled == 1)
    mended.set()
    until(lambda: recorder.n_written == 3)
    recorder.stop()
    assert {row["id"] for row in decisions(engine)} > {one.id for one in made}
    assert caplog.text.count("cannot be read") == 1
    assert list((tmp_path / "spool").iterdir()) == []


# Feedback that comes before its decision


def feedback(made: Decision, *, correct: bool = True) -> NewFeedback:
    return NewFeedback(made.id, correct=correct, created_at=utc_now())


def n_feedback(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM feedback")).scalar_one())


def refused(folder: Path) -> list[Record]:
    path = folder / "spool" / "refused.jsonl"
    return [Record.from_line(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_feedback_before_its_decision_waits_for_it_and_keeps_no_other_waiting(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "FIRST_LOOK_S", 0.02)
    monkeypatch.setattr(record, "N_LOOKS", 12)
    streaming, of_another_worker = decision(), decision()
    recorder = Recorder(engine, QUICK, tmp_path)
    recorder.start()
    for made in (streaming, of_another_worker):
        recorder.give(feedback(made))
    recorder.record(decision())
    until(lambda: recorder.n_written == 1 and recorder.n_spooled == 2)
    assert not recorder.is_behind
    recorder.record(streaming)
    add_decisions(engine, [of_another_worker.as_row()])
    until(lambda: recorder.n_spooled == 0 and recorder.n_written == 4, 60)
    recorder.stop()
    assert (n_feedback(engine), recorder.n_dropped, refused(tmp_path)) == (2, 0, [])
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("n_looks", [0, 7])
def test_feedback_that_waits_for_its_decision_outlives_its_process(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_looks: int
) -> None:
    monkeypatch.setattr(record, "N_LOOKS", n_looks)  # the last look of a process that ends is not the last of all
    made = decision()
    recorder = Recorder(engine, Recording(flush_interval_s=60), tmp_path)
    recorder.start()
    recorder.give(feedback(made))
    recorder.stop()
    assert (recorder.n_spooled, recorder.n_written, refused(tmp_path)) == (1, 0, [])
    add_decisions(engine, [made.as_row()])
    after = Recorder(engine, QUICK, tmp_path)
    after.start()
    until(lambda: after.n_written == 1)
    after.stop()
    assert n_feedback(engine) == 1


def test_feedback_is_looked_after_for_about_a_minute() -> None:
    assert sum(record.FIRST_LOOK_S * 2**n for n in range(record.N_LOOKS)) == pytest.approx(60, rel=0.1)


def test_feedback_without_a_decision_is_set_aside_at_last_and_never_counts_as_written(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "FIRST_LOOK_S", 0.01)
    monkeypatch.setattr(record, "N_LOOKS", 2)
    made, forgotten = decision(), decision()
    recorder = Recorder(engine, QUICK, tmp_path)
    recorder.start()
    recorder.record(made)
    said = [feedback(made), feedback(forgotten), feedback(made, correct=False)]
    for one in said:
        recorder.give(one)
    until(lambda: recorder.n_dropped == 2 and recorder.n_spooled == 0)
    recorder.stop()
    assert (recorder.n_written, n_feedback(engine)) == (2, 1)
    assert {(one.row["decision_id"], one.row["correct"]) for one in refused(tmp_path)} == {
        (forgotten.id, True),
        (made.id, False),
    }


def test_what_the_database_does_not_take_before_the_end_stays_on_the_disk(engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE decisions RENAME TO elsewhere"))
    recorder = Recorder(engine, QUICK, tmp_path)
    recorder.start()
    recorder.record(decision())
    recorder.stop()
    assert (recorder.n_spooled, recorder.n_dropped) == (1, 0)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO decisions"))
    after = Recorder(engine, QUICK, tmp_path)
    after.start()
    until(lambda: after.n_written == 1)
    after.stop()
    assert len(decisions(engine)) == 1


def test_a_disk_that_takes_nothing_does_not_keep_records_from_the_database(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder can be made in here")
    recorder = Recorder(engine, QUICK, tmp_path / "file")
    recorder.start()
    recorder.record(decision())
    until(lambda: recorder.n_written == 1)
    recorder.stop()
    assert len(decisions(engine)) == 1
    assert "the disk takes no records" in caplog.text


def test_without_disk_and_database_memory_holds_as_many_as_the_queue_and_the_rest_is_counted(
    engine: Engine, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE decisions RENAME TO elsewhere"))
    recorder = Recorder(engine, Recording(flush_interval_s=0.02, queue_size=3, max_spool_bytes=1), tmp_path)
    recorder.start()
    for n_made in range(1, 6):
        recorder.record(decision())
        until(lambda n=n_made: recorder.n_spooled + recorder.n_dropped == n)  # type: ignore[misc]
    assert (recorder.n_spooled, recorder.n_dropped) == (3, 2)
    recorder.stop()
    assert recorder.n_dropped == 5
