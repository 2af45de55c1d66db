"""One request's way through the router: filter, encode, score, choose, send, fall back, record.

It only waits: encoding and scoring run in a thread of their own, HTTP is `router.upstream`'s, the choice
`router.choice`'s, fallbacks are `router.asking`'s, and records are written later by `router.record`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

from router.asking import CLIENT_FAULT, Asker
from router.champion import ChampionWatch
from router.choice import (
    ENCODER_FAILED,
    UNTRAINED,
    Forecast,
    bounded,
    choose,
    explain,
    forecast,
    named_entry,
    unsaid,
)
from router.chunks import n_choices
from router.decision import CLIENT_CLOSED, Decision, Option
from router.eligibility import eligible
from router.errors import (
    EncoderError,
    InternalError,
    InvalidRequestError,
    NoArtifactError,
    NoRoutableModelError,
    UpstreamError,
    UpstreamsFailedError,
)
from router.evidence_index import EvidenceIndex
from router.forecasting import Forecasting
from router.observed import Observed
from router.pool import AUTO, Pool
from router.record import Recorder
from router.relay import relay_for
from router.reply import Reply
from router.request import PromptRequest
from router.sse import COMMENT
from router.upstream import ReplyStream, Upstreams

logger = logging.getLogger(__name__)

N_NEAREST = 5  # labelled questions that explain a choice
SHUTTING_DOWN = "shutting_down"
SHUTS_DOWN = {
    "message": "the router shuts down: ask again",
    "type": "server_error",
    "param": None,
    "code": SHUTTING_DOWN,
}
SHUT_DOWN_STATUS = 503
CLIENT_CLOSED_STATUS = 499  # as nginx counts it: no one was left to see a status


class Answer(NamedTuple):
    """A whole answer for the client."""

    status: int
    body: dict[str, object]
    headers: dict[str, str]
    decision: Decision


class AnswerStream:
    """A streamed answer for the client: its headers, then its events. Always `aclose()` it."""

    def __init__(
        self, decision: Decision, request: PromptRequest, stream: ReplyStream, recorder: Recorder, observed: Observed
    ) -> None:
        assert decision.answered is not None
        assert decision.answered.entry.upstream is not None
        self.headers = decision.headers()
        self.decision = decision
        self._upstream = decision.answered.entry.upstream
        self._relay = relay_for(request, decision.answered.entry.name, stream.held)
        self._stream = stream
        stream.n_choices = n_choices(request.body)
        self._recorder = recorder
        self._observed = observed

    @property
    def deadline(self) -> float:
        """When the upstream must have said all, on the loop's clock."""
        return self._stream.deadline

    async def events(self) -> AsyncGenerator[bytes]:
        """Each chunk as its endpoint writes it, then the end; or one error object where the upstream broke off."""
        relay, decision = self._relay, self.decision
        took_s, since = decision.attempts[-1].latency_s, perf_counter()
        try:
            async for chunk in self._stream:
                took_s += perf_counter() - since  # the upstream's time alone: the client may read slowly
                if chunk is None:
                    yield COMMENT
                else:
                    decision.count(chunk)
                    if (event := relay.event(chunk)) is not None:
                        yield event
                since = perf_counter()
            took_s += perf_counter() - since
        except UpstreamError as failure:
            if failure.code != "total_timeout":  # else it was at work, and may have begun late for others' sake
                self._observed.breakers.failed(self._upstream, asked_at=decision.asked_at)
            decision.fail(failure)
            decision.close(200, f"stream_{failure.code}")
            error = {"message": f"the upstream broke off: {failure}", "type": "upstream_error", "param": None}
            yield relay.failure({**error, "code": "upstream_stream_failed"})
        except Exception:
            logger.exception("a stream broke off by a defect of the router")
            decision.close(200, "stream_internal_error")
            error = {"message": "the router failed on this stream", "type": "server_error", "param": None}
            yield relay.failure({**error, "code": "internal_error"})
        else:
            decision.close(200)
            self._observed.latencies.add(self._upstream, took_s)
            if end := relay.end():
                yield end

    def cut(self) -> bytes:
        """The last event of an answer that a router which shuts down waits for no longer; none where it had its end."""
        if self.decision.status:
            return b""
        self.decision.close(200, f"stream_{SHUTTING_DOWN}")
        return self._relay.failure(SHUTS_DOWN)

    def stall(self) -> None:
        """Note that the client did not take its answer."""
        self.decision.close(200, "stream_client_stalled")

    async def aclose(self) -> None:
        """End the upstream's call and record how it went; without an end, it was the client who left."""
        try:
            await self._stream.aclose()
        finally:
            if not self.decision.status:
                self.decision.close(CLIENT_CLOSED_STATUS, CLIENT_CLOSED)
            self._recorder.record(self.decision)


class Service:
    """The router, as the endpoints see it."""

    def __init__(
        self, watch: ChampionWatch, upstreams: Upstreams, recorder: Recorder, observed: Observed | None = None
    ) -> None:
        self.watch = watch
        self.index: EvidenceIndex | None = None
        self.observed = observed or Observed()
        self._asker = Asker(upstreams, self.observed)
        self._recorder = recorder
        self._forecasting = Forecasting(watch.settings.encoder.deadline_s)

    async def evidence(self, text: str, k: int = N_NEAREST) -> dict[str, object]:
        """The labelled questions nearest to a text, with each model's record on them."""
        artifact = self.watch.current.artifact
        if artifact is None:
            raise NoArtifactError(self.watch.missing)
        index = self.index.fitting(artifact) if self.index is not None else None
        if index is None:
            why = "it is not built yet" if self.index is not None else "`evidence.enabled` is false"
            return {"nearest": [], "n_questions": 0, "note": f"there is no index: {why}"}
        try:
            vectors = await self._forecasting.run(artifact.encoder.encode, [text])
        except EncoderError:
            return {"nearest": [], "n_questions": 0, "note": ENCODER_FAILED}
        nearest = await asyncio.get_running_loop().run_in_executor(None, index.nearest, vectors[0], k)
        shown = {**index.summary(), "nearest": [neighbour.as_json() for neighbour in nearest]}
        if not nearest:
            shown["note"] = "nothing of the text is known from the logs"
        return {**shown, "encoder": index.encoder_fingerprint}

    @property
    def encoder_queue_depth(self) -> int:
        """How many prompts wait to be encoded."""
        return self._forecasting.n_waiting

    def close(self) -> None:
        self._forecasting.close()

    async def complete(self, decision: Decision, request: PromptRequest) -> Answer:
        """Ask for a whole answer, of the model that was chosen and its fallbacks in turn, and record the decision.

        Who cancels it knows why, and gives it up.
        """
        reply = await self._ask(decision, request)
        assert isinstance(reply, Reply), "no stream was asked for"
        return self._finished(decision, reply)

    async def stream(self, decision: Decision, request: PromptRequest) -> Answer | AnswerStream:
        """The same for a stream; a whole answer says what is wrong with the request."""
        self._recorder.begin(decision)
        reply = await self._ask(decision, request)
        if isinstance(reply, ReplyStream):
            return AnswerStream(decision, request, reply, self._recorder, self.observed)
        return self._finished(decision, reply)

    def give_up(self, decision: Decision, *, client_left: bool = True) -> None:
        """Record that a decision was not answered to its end: its client left, or else the router shuts down."""
        decision.measure()
        if client_left:
            decision.close(CLIENT_CLOSED_STATUS, CLIENT_CLOSED)
        else:
            decision.interrupt(SHUTTING_DOWN)
            decision.close(decision.status_seen(SHUT_DOWN_STATUS), SHUTTING_DOWN)
        self._recorder.record(decision)

    async def _ask(self, decision: Decision, request: PromptRequest) -> Reply | ReplyStream:
        try:
            reply = await self._asker.ask(decision, request)
        except UpstreamsFailedError as error:
            decision.measure()
            decision.close(decision.status_seen(error.status), error.code)
            error.decision_headers = decision.headers()
            self._recorder.record(decision)
            raise
        except Exception:  # a defect of ours: what was decided and tried is known all the same
            decision.measure()
            decision.close(decision.status_seen(InternalError.status), InternalError.code)
            self._recorder.record(decision)
            raise
        decision.measure()
        return reply

    async def decide(self, request: PromptRequest, request_id: str) -> Decision:
        """Choose a model without asking it; one that the client names is the choice."""
        started = perf_counter()
        current = self.watch.current  # one reference for the whole request, whatever is promoted meanwhile
        if request.model != AUTO:
            choice = Option(named_entry(current.pool, request.model), None, None, 1.0)
            named = Decision(request_id, None, None, (choice,), streamed=request.stream, started=started)
            named.prompt = request.text
            return named
        if not request.endpoint.routed:
            message = f"{request.endpoint.path} is not routed: vectors of two models cannot be compared; name a model"
            raise InvalidRequestError(message, param="model")
        if current.artifact is None:
            decision = self._decide_untrained(request, request_id, current.pool)
        else:
            entries, reasons = eligible(current.pool, request, self.observed)
            seen = await self._forecasting.forecast(current.artifact, request.text)
            decision = choose(request, request_id, current.pool, entries, reasons, seen, self.observed)
            decision.artifact_id = current.artifact.id
        decision.started = started
        decision.prompt, decision.route_s = request.text, perf_counter() - started
        return decision

    def _decide_untrained(self, request: PromptRequest, request_id: str, pool: Pool) -> Decision:
        """Choose where there is no artifact: a model that is asked for outright; NoArtifactError where none is."""
        try:
            entries, reasons = eligible(pool, request, self.observed)
            return choose(request, request_id, pool, entries, reasons, Forecast([], UNTRAINED), self.observed)
        except NoRoutableModelError:
            raise NoArtifactError(self.watch.missing) from None

    async def explain(self, request: PromptRequest, request_id: str) -> dict[str, object]:
        """Say what would be chosen and why, without asking any model; nothing is recorded."""
        current = self.watch.current
        if request.model != AUTO or current.artifact is None:
            return (await self.decide(request, request_id)).explain()
        explained = await self._forecasting.run(
            explain, request, request_id, current.artifact, current.pool, self.observed
        )
        return {**explained, "evidence": await self.evidence(request.text)}

    async def explain_answer(self, decision: Decision) -> dict[str, object]:
        """Explain a decision that was made: what its answer's debug part says."""
        artifact, pool = self.watch.current.artifact, self.watch.current.pool
        encoder: dict[str, object] = {}
        if decision.policy is not None:
            out = [Option(entry, None, None, 0.0, reason) for entry, reason in unsaid(pool, decision)]
            decision = replace(decision, others=(*decision.others, *out))
        if artifact is not None and decision.artifact_id == artifact.id:
            encoder = {"encoder": artifact.manifest.encoder_fingerprint}
            decision = bounded(decision, await self._forecasting.run(forecast, artifact, decision.prompt))
        explained = {"id": decision.id, **decision.explain(), **encoder}
        if decision.artifact_id is not None:
            explained["evidence"] = await self.evidence(decision.prompt)
        return explained

    def _finished(self, decision: Decision, reply: Reply) -> Answer:
        """Put our names and headers on a whole answer and record it."""
        if decision.answered is not None:
            reply.body["model"] = decision.answered.entry.name
            decision.count(reply.body)
        headers = decision.headers()
        if decision.cost_usd is not None:
            headers["x-embedrouter-cost-usd"] = f"{decision.cost_usd:.8f}"
        decision.close(decision.status_seen(reply.status), None if decision.answered else CLIENT_FAULT)
        self._recorder.record(decision)
        return Answer(reply.status, reply.body, headers, decision)
