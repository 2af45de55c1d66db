"""Forecasts of prompts that come together."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Event, get_ident

import pytest

from router.artifact import Artifact
from router.choice import ENCODER_FAILED, LATE, Forecast, as_usual, forecast
from router.encoder.base import Vectors
from router.encoder.lsa import LsaEncoder
from router.errors import EncoderError
from router.forecasting import LIGHT_CHARS, MAX_TOGETHER, Forecasting
from tests.serving import A_POEM, A_SUM, planted_artifact
from tests.waiting import eventually

BROKEN = "no encoder reads this"


@dataclass
class Watched:
    """The planted encoder, which notes what it was asked, by which thread, refuses one text, and waits to be let go."""

    encoder: LsaEncoder
    is_light: bool = True
    is_serial: bool = False
    max_tokens: int = 4_096
    failure: type[BaseException] = ValueError
    held: Event | None = None
    asked: list[list[str]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def encode(self, prompts: Sequence[str]) -> Vectors:
        self.asked.append(list(prompts))
        self.threads.add(get_ident())
        if self.held is not None:
            self.held.wait(60)
        if BROKEN in prompts:
            raise self.failure(BROKEN)
        return self.encoder.encode(prompts)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return planted_artifact(tmp_path_factory.mktemp("artifacts"), {"a": (0.9, 0.3), "b": (0.4, 0.8)})


@pytest.fixture
def encoder(artifact: Artifact) -> Watched:
    assert isinstance(artifact.encoder, LsaEncoder)
    return Watched(artifact.encoder)


@pytest.fixture
async def forecasting() -> AsyncIterator[Forecasting]:
    made = Forecasting(deadline_s=60)
    yield made
    made.close()


def watched(artifact: Artifact, encoder: Watched) -> Artifact:
    return replace(artifact, encoder=encoder)  # type: ignore[arg-type]


async def test_prompts_that_come_together_are_forecast_in_one_pass_as_each_alone(
    artifact: Artifact, encoder: Watched, forecasting: Forecasting
) -> None:
    texts = [A_SUM, A_POEM, "", "zzz qqq"]
    serving = watched(artifact, encoder)
    seen = await asyncio.gather(*(forecasting.forecast(serving, text) for text in texts))
    assert encoder.asked == [texts]
    assert encoder.threads == {get_ident()}
    for found, text in zip(seen, texts, strict=True):
        alone = forecast(artifact, text)
        assert found.p_correct == pytest.approx(alone.p_correct, abs=1e-6)
        assert (found.output_tokens, found.doubt) == (alone.output_tokens, alone.doubt)
        assert found.novelty == (alone.novelty and pytest.approx(alone.novelty, abs=1e-6))


@pytest.mark.parametrize("is_light", [True, False])
async def test_who_leaves_before_its_turn_holds_nobody_up(
    artifact: Artifact, encoder: Watched, forecasting: Forecasting, is_light: bool
) -> None:
    encoder.is_light = is_light
    leaving = asyncio.create_task(forecasting.forecast(watched(artifact, encoder), A_SUM))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    async with asyncio.timeout(60):
        assert isinstance(await forecasting.forecast(watched(artifact, encoder), A_POEM), Forecast)
    assert forecasting.n_waiting == 0


@pytest.mark.parametrize("failure", [ValueError, MemoryError, RuntimeError])
@pytest.mark.parametrize("is_light", [True, False])
async def test_a_prompt_that_cannot_be_encoded_takes_no_other_with_it(
    artifact: Artifact, encoder: Watched, forecasting: Forecasting, failure: type[Exception], is_light: bool
) -> None:
    encoder.failure, encoder.is_light = failure, is_light
    texts = [A_SUM, BROKEN, A_POEM]
    serving = watched(artifact, encoder)
    seen = await asyncio.gather(*(forecasting.forecast(serving, text) for text in texts))
    assert [one.doubt for one in seen] == [None, ENCODER_FAILED, None]


class Panic(BaseException):
    """What no handler of errors takes, as a panic of a library in another language."""


async def test_a_panic_leaves_no_prompt_without_its_deadline(artifact: Artifact, encoder: Watched) -> None:
    encoder.failure, encoder.is_light = Panic, True
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    forecasting = Forecasting(deadline_s=0.3)
    try:
        assert (await forecasting.forecast(watched(artifact, encoder), BROKEN)).doubt == LATE
    finally:
        forecasting.close()


async def test_long_prompts_and_heavy_encoders_leave_the_event_loop_alone(
    artifact: Artifact, encoder: Watched, forecasting: Forecasting
) -> None:
    serving = watched(artifact, encoder)
    await forecasting.forecast(serving, "sum " * LIGHT_CHARS)
    encoder.is_light = False
    n = MAX_TOGETHER + 3
    await asyncio.gather(*(forecasting.forecast(serving, A_SUM) for _ in range(n)))
    assert get_ident() not in encoder.threads
    assert [len(texts) for texts in encoder.asked] == [1, MAX_TOGETHER, 3]


async def test_a_prompt_without_its_encoder_is_as_usual_and_its_company_is_not(
    artifact: Artifact, encoder: Watched, forecasting: Forecasting, caplog: pytest.LogCaptureFixture
) -> None:
    encoder.failure = EncoderError
    serving = watched(artifact, encoder)
    fine, broken = await asyncio.gather(*(forecasting.forecast(serving, text) for text in (A_SUM, BROKEN)))
    assert fine.doubt is None
    assert broken == as_usual(artifact, ENCODER_FAILED)
    assert broken.p_correct == pytest.approx(artifact.scorer.usual)
    await forecasting.forecast(serving, BROKEN)
    assert [BROKEN in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("is_light", [True, False])
async def test_the_late_are_as_usual_and_leave_the_queue(artifact: Artifact, encoder: Watched, is_light: bool) -> None:
    encoder.is_light, encoder.held = is_light, Event()
    forecasting = Forecasting(deadline_s=0.3)
    serving = watched(artifact, encoder)
    try:
        running = "sum " * LIGHT_CHARS
        assert (await forecasting.forecast(serving, running)).doubt == LATE
        behind = await asyncio.gather(*(forecasting.forecast(serving, A_SUM) for _ in range(MAX_TOGETHER + 3)))
        assert behind == [as_usual(artifact, LATE)] * (MAX_TOGETHER + 3)
        assert forecasting.n_waiting == 0
        forecasting._deadline_s = 60
        next_one = asyncio.create_task(forecasting.forecast(serving, A_POEM))
        await asyncio.sleep(0)
        encoder.held.set()
        assert (await next_one).doubt is None
        assert encoder.asked == [[running], [A_POEM]]
    finally:
        encoder.held.set()
        forecasting.close()


async def test_a_batch_that_fails_late_is_not_tried_again_one_by_one(artifact: Artifact, encoder: Watched) -> None:
    encoder.is_light, encoder.held = False, Event()
    forecasting = Forecasting(deadline_s=0.3)
    serving = watched(artifact, encoder)
    try:
        late = await asyncio.gather(*(forecasting.forecast(serving, text) for text in (A_SUM, BROKEN)))
        assert late == [as_usual(artifact, LATE)] * 2
        encoder.held.set()
        forecasting._deadline_s = 60
        assert (await forecasting.forecast(serving, A_POEM)).doubt is None
        assert encoder.asked == [[A_SUM, BROKEN], [A_POEM]]
    finally:
        encoder.held.set()
        forecasting.close()


async def test_what_goes_together_takes_a_share_of_the_deadline_and_who_would_be_late_is_passed_over(
    artifact: Artifact, encoder: Watched
) -> None:
    encoder.is_light, encoder.max_tokens, encoder.held = False, 16, Event()
    serving = watched(artifact, encoder)
    forecasting = Forecasting(deadline_s=100)
    try:
        running = asyncio.create_task(forecasting.forecast(serving, A_POEM))
        await eventually(lambda: bool(encoder.asked))  # it is held in the thread
        forecasting._deadline_s = 0.5
        short_of_time = asyncio.create_task(forecasting.forecast(serving, "x" * 90))
        await asyncio.sleep(0.01)
        forecasting._deadline_s = 100
        others = [asyncio.create_task(forecasting.forecast(serving, "y" * n)) for n in (100, 1_000, 110, 100, 30)]
        await asyncio.sleep(0.01)
        forecasting._ran_s, forecasting._ran_chars = 1e6, 1e7  # 0.1 s a character that is read; the share is 25 s
        encoder.held.set()
        await asyncio.gather(running, *others)
        assert [[len(text) for text in texts] for texts in encoder.asked[1:]] == [[100], [1_000, 110], [100, 30]]
        assert (await short_of_time).doubt == LATE
    finally:
        encoder.held.set()
        forecasting.close()


@pytest.mark.parametrize(("is_serial", "n_batches"), [(True, 2), (False, 1)])
async def test_an_encoder_that_keeps_one_core_busy_is_asked_by_a_thread_for_each_core(
    artifact: Artifact, encoder: Watched, is_serial: bool, n_batches: int
) -> None:
    encoder.is_light, encoder.is_serial, encoder.held = False, is_serial, Event()
    serving, forecasting = watched(artifact, encoder), Forecasting(deadline_s=60, n_cores=2)
    texts = [f"{A_SUM} {number}" for number in range(6)]
    seen = asyncio.gather(*(forecasting.forecast(serving, text) for text in texts))
    await eventually(lambda: len(encoder.asked) == n_batches)
    late = asyncio.create_task(forecasting.forecast(serving, A_POEM))  # all threads are busy
    await asyncio.sleep(0.05)
    assert sorted(map(len, encoder.asked)) == [6 // n_batches] * n_batches
    assert len(encoder.threads) == n_batches
    encoder.held.set()
    found = [*await seen, await late]
    assert encoder.asked[n_batches:] == [[A_POEM]]
    assert forecasting.n_waiting == 0
    forecasting.close()
    for text, one in zip([*texts, A_POEM], found, strict=True):
        assert one.p_correct == pytest.approx(forecast(artifact, text).p_correct)
