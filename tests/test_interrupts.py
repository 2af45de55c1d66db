"""Signals that come while threads serve."""

import signal
import threading

import pytest
import uvicorn

from router.interrupts import HeldInterrupts


async def app(scope: object, receive: object, send: object) -> None:
    raise AssertionError("nobody asks")


@pytest.fixture
def server() -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None))


def interrupt(n_times: int = 1) -> None:
    for _ in range(n_times):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_for_the_end_of_the_block(server: uvicorn.Server) -> None:
    steps: list[bool] = []

    def serve() -> None:
        with HeldInterrupts() as interrupts:
            interrupts.stop(server)
            interrupt()
            steps.append(server.should_exit)

    with pytest.raises(KeyboardInterrupt):
        serve()
    assert steps == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_before_there_is_a_server_keeps_it_from_serving(server: uvicorn.Server) -> None:
    def serve() -> None:
        with HeldInterrupts() as interrupts:
            interrupt()
            interrupts.stop(server)
            server.run()

    with pytest.raises(KeyboardInterrupt):
        serve()
    assert server.started


def test_a_second_interrupt_does_not_wait_for_requests(server: uvicorn.Server) -> None:
    def serve() -> None:
        with HeldInterrupts() as interrupts:
            interrupts.stop(server)
            interrupt(2)

    with pytest.raises(KeyboardInterrupt):
        serve()
    assert server.force_exit


def test_an_error_in_the_block_is_not_hidden_by_an_interrupt() -> None:
    def serve() -> None:
        with HeldInterrupts():
            interrupt()
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        serve()


def test_without_a_signal_nothing_is_raised_and_the_handlers_are_as_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with HeldInterrupts():
        assert threading.current_thread() is threading.main_thread()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
