"""Lines of the log come whole, in order and blotted, written together; whoever logs never waits for them."""

import gc
import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from router import logs
from router.logs import BLOT, Blotting, JsonFormatter, Secrets, TextFormatter, Together
from tests.waiting import until


def logger_to(stream: io.StringIO) -> logging.Logger:
    logger = logging.Logger("of this test")
    handler = Together(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    return logger


def messages(stream: io.StringIO) -> list[str]:
    return [json.loads(line)["message"] for line in stream.getvalue().splitlines()]


def test_lines_come_in_order() -> None:
    stream = io.StringIO()
    logger = logger_to(stream)
    for number in range(3):
        logger.info("line %d", number)
    logger.warning("line 3")
    until(lambda: stream.getvalue().count("\n") == 4)
    assert messages(stream) == [f"line {n}" for n in range(4)]


@pytest.mark.parametrize("moments", [(0.0, 0.25, 1.0, 0.75), (1_700_000_000.9375, 1_700_000_001.0, 1_700_000_060.5)])
def test_a_line_says_when_it_was_written(moments: Sequence[float]) -> None:
    formatter = JsonFormatter()
    for moment in moments:
        record = logging.makeLogRecord({"created": moment})
        said = json.loads(formatter.format(record))["time"]
        assert said == datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def test_no_line_of_any_thread_is_lost() -> None:
    stream = io.StringIO()
    logger = logger_to(stream)

    def write(thread: int) -> None:
        for number in range(2_000):
            logger.info("%d", thread * 2_000 + number)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: stream.getvalue().count("\n") == 8_000)
    assert sorted(map(int, messages(stream))) == list(range(8_000))


def test_a_destructor_that_logs_while_a_line_is_written_locks_nobody_out() -> None:
    done = threading.Event()

    class Leaving:
        """Garbage that says so when it is collected, which may be at any allocation."""

        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            logger.warning("gone")

    class Collecting(io.StringIO):
        def write(self, text: str) -> int:
            Leaving()
            gc.collect(0)
            return super().write(text)

    stream = Collecting()
    logger = logger_to(stream)

    def work() -> None:
        for _ in range(50):
            Leaving()
            logger.warning("here")
            gc.collect(0)
            logger.handlers[0].flush()
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(20)
    until(lambda: messages(stream).count("here") == 50 and messages(stream).count("gone") >= 50)


def test_lines_that_nobody_reads_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_WAITING", 100)
    reads = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            assert reads.wait(20)
            return super().write(text)

    stream = Stuck()
    logger = logger_to(stream)
    for number in range(1_000):
        logger.info("%d", number)
    reads.set()

    def n_dropped() -> int:
        said = [line for line in stream.getvalue().splitlines() if not line.startswith("{")]
        return sum(int(line.split()[0]) for line in said if "lines of the log dropped" in line)

    until(lambda: n_dropped() + stream.getvalue().count("{") == 1_000)
    assert n_dropped() > 0


def test_one_line_that_cannot_be_written_takes_no_other_with_it() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    handler = Together(stream)
    logger = logging.Logger("of this test")
    logger.addHandler(handler)
    for message in ("before", "\N{SNOWMAN}", "after"):
        logger.info(message)
    handler.flush()
    stream.seek(0)
    assert stream.read() == "before\nafter\n"


@pytest.mark.parametrize("secret", ['pa"ss', "pa\\ss", "pässwörd", "pass\N{KEY}"])
@pytest.mark.parametrize("formatter", [JsonFormatter(), logging.Formatter()])
def test_a_secret_is_blotted_out_however_a_line_writes_it(secret: str, formatter: logging.Formatter) -> None:
    record = logging.makeLogRecord({"msg": f"the key {secret} and more"})
    line = Blotting(formatter, Secrets([secret])).format(record)
    assert f"the key {BLOT} and more" in line


def test_a_line_that_cannot_be_formatted_says_so_without_what_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    logger = logger_to(stream)
    logger.warning("%d", "sk-secret")
    logger.handlers[0].flush()
    assert stream.getvalue() == "a line of of this test cannot be formatted: TypeError\n"
    assert capsys.readouterr().err == ""


def test_the_last_lines_are_written_at_the_end_of_the_process() -> None:
    program = (
        "import logging; from router.logs import Secrets, configure_logs; from router.settings import Logs; "
        "configure_logs(Logs(), Secrets()); [logging.getLogger('router').info('line %d', n) for n in range(5)]"
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=Path(__file__).parents[1])
    assert [json.loads(line)["message"] for line in ran.stderr.splitlines()] == [f"line {n}" for n in range(5)]


@pytest.mark.parametrize("is_json", [True, False])
def test_fields_are_logged_alike_with_and_without_a_record(is_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = io.StringIO(), io.StringIO()
    written = []
    for stream, log in zip(streams, (logs.log_fields, with_a_record), strict=True):
        handler = Together(stream)
        handler.setFormatter(Blotting(JsonFormatter() if is_json else TextFormatter(), Secrets(["sk-x"])))
        monkeypatch.setattr(logging.root, "handlers", [handler])
        log(logging.getLogger("router.access"), logging.WARNING, "request", {"status": 503, "model": "of sk-x"})
        log(logging.getLogger("router.access"), logging.NOTSET, "never shown", {})
        until(lambda stream=stream: "\n" in stream.getvalue())  # type: ignore[misc]
        written.append(re.sub(r"[0-9:.,]+", "", stream.getvalue()))
    assert written[0] == written[1]
    assert "sk-x" not in streams[0].getvalue()
    assert ('"status":503,' if is_json else "request status=503 model=of ***\n") in streams[0].getvalue()


def with_a_record(logger: logging.Logger, level: int, message: str, fields: Mapping[str, object]) -> None:
    logger.log(level, message, extra={"fields": fields})


def test_fields_reach_whoever_else_listens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "router.access"):
        logs.log_fields(logging.getLogger("router.access"), logging.INFO, "request", {"status": 200})
    assert [record.fields for record in caplog.records] == [{"status": 200}]  # type: ignore[attr-defined]


def test_fields_that_cannot_be_written_fail_no_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    handler = Together(stream)
    handler.setFormatter(Blotting(JsonFormatter(), Secrets()))
    monkeypatch.setattr(logging.root, "handlers", [handler])
    logs.log_fields(logging.getLogger("router.access"), logging.WARNING, "request", {"status": object()})
    until(lambda: "cannot be formatted: TypeError" in stream.getvalue())


def test_fields_pass_whatever_filters_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    handler = Together(stream)
    handler.setFormatter(Blotting(JsonFormatter(), Secrets()))
    monkeypatch.setattr(logging.root, "handlers", [handler])
    logger = logging.getLogger("router.access")
    handler.addFilter(lambda record: record.getMessage() != "hidden")
    logs.log_fields(logger, logging.WARNING, "hidden", {})
    handler.setLevel(logging.ERROR)
    logs.log_fields(logger, logging.WARNING, "too low", {})
    logs.log_fields(logger, logging.ERROR, "shown", {})
    until(lambda: bool(stream.getvalue()))
    assert messages(stream) == ["shown"]
