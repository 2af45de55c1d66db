"""Lines of the log come whole, in order and blotted, written together but never late where something is wrong."""

import io
import json
import logging
import threading
import time

from router.logs import JsonFormatter, Together


def logger_to(stream: io.StringIO) -> logging.Logger:
    logger = logging.Logger("of this test")
    handler = Together(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    return logger


def test_a_warning_is_written_at_once_with_what_stands_before_it() -> None:
    stream = io.StringIO()
    logger = logger_to(stream)
    for number in range(3):
        logger.info("line %d", number)
    logger.warning("line 3")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == [f"line {n}" for n in range(4)]


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
    deadline = time.monotonic() + 10
    while stream.getvalue().count("\n") < 8_000 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sorted(int(json.loads(line)["message"]) for line in stream.getvalue().splitlines()) == list(range(8_000))


def test_a_stream_that_is_closed_ends_neither_the_log_nor_a_request() -> None:
    stream = io.StringIO()
    logger = logger_to(stream)
    stream.close()
    logger.warning("nobody reads this")
