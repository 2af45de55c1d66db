"""Waiting with an end: it ends what is late, and nothing else."""

import asyncio

import pytest

from router.logs import REQUEST_ID
from router.until import alarms_of, until


async def test_what_is_in_time_is_left_alone() -> None:
    loop = asyncio.get_running_loop()
    with until(loop, loop.time() + 60):
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # nothing is left behind that would cancel


async def test_what_is_late_is_cancelled_and_can_go_on() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError), until(loop, loop.time() + 0.01):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_a_time_that_is_over_ends_the_first_wait() -> None:
    loop = asyncio.get_running_loop()

    async def turn_twice() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with pytest.raises(TimeoutError), until(loop, loop.time() - 1):
        await turn_twice()


async def test_an_alarm_that_fails_keeps_no_other_from_ringing(caplog: pytest.LogCaptureFixture) -> None:
    class Fails:
        at = 0.0

        def ring(self) -> None:
            raise KeyError

    loop = asyncio.get_running_loop()
    alarms_of(loop).add(Fails())
    for _ in range(2):
        with pytest.raises(TimeoutError), until(loop, loop.time() + 0.01):
            await asyncio.Event().wait()
    assert [record.message for record in caplog.records] == ["an alarm fails"]


async def test_an_alarm_rings_in_no_request_s_context() -> None:
    class Notes:
        def __init__(self, at: float) -> None:
            self.at = at
            self.seen: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

        def ring(self) -> None:
            self.seen.set_result(REQUEST_ID.get())

    loop = asyncio.get_running_loop()
    REQUEST_ID.set("this one's")
    for at in (loop.time() - 1, loop.time() + 0.01):
        notes = Notes(at)
        alarms_of(loop).add(notes)
        assert await notes.seen is None


async def test_it_can_be_put_off() -> None:
    loop = asyncio.get_running_loop()
    with until(loop, loop.time() + 0.02) as patience:
        patience.reschedule(loop.time() + 60)
        await asyncio.sleep(0.05)


async def test_of_two_the_sooner_ends_its_own_inside() -> None:
    loop = asyncio.get_running_loop()
    with until(loop, loop.time() + 60), pytest.raises(TimeoutError), until(loop, loop.time() + 0.01):
        await asyncio.Event().wait()
    with pytest.raises(TimeoutError), until(loop, loop.time() + 0.01), until(loop, loop.time() + 60):
        await asyncio.Event().wait()


async def test_a_cancellation_from_outside_stays_one() -> None:
    loop = asyncio.get_running_loop()
    waits = asyncio.Event()

    async def wait(seconds: float) -> None:
        with until(loop, loop.time() + seconds):
            waits.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait(60))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_in_the_same_moment_is_not_swallowed() -> None:
    loop = asyncio.get_running_loop()
    waits = asyncio.Event()

    async def wait() -> None:
        with until(loop, loop.time() - 1):  # over as soon as the loop turns
            waits.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_another_error_passes_through() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(KeyError), until(loop, loop.time() + 60):
        raise KeyError


async def test_of_many_all_that_are_late_end_and_no_other() -> None:
    loop = asyncio.get_running_loop()

    async def wait(seconds: float) -> str:
        try:
            with until(loop, loop.time() + seconds):
                await asyncio.sleep(0.2)
        except TimeoutError:
            return "late"
        return "in time"

    ended = await asyncio.gather(*(wait(60 if n % 3 else 0.01) for n in range(90)))
    assert ended == ["in time" if n % 3 else "late" for n in range(90)]
    with pytest.raises(TimeoutError), until(loop, loop.time() + 0.01):  # after a time in which nothing waited
        await asyncio.Event().wait()


def test_each_loop_has_its_own() -> None:
    async def late() -> None:
        loop = asyncio.get_running_loop()
        with until(loop, loop.time() + 60):
            await asyncio.to_thread(asyncio.run, inner())
            with pytest.raises(TimeoutError), until(loop, loop.time() + 0.01):
                await asyncio.Event().wait()

    async def inner() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError), until(loop, loop.time() + 0.01):
            await asyncio.Event().wait()

    asyncio.run(late())
