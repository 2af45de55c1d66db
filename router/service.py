"""One request's way through the router: filter, encode, score, choose, send, fall back, record.

It only waits: encoding and scoring run in a thread of their own, HTTP is `router.upstream`'s, the choice
`router.choice`'s, and records are written later by `router.record`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

from router.champion import ChampionWatch
from router.choice import choose, eligible, explain, forecast, named_entry
from router.decision import Decision, Option
from router.errors import Attempt, NoArtifactError, UpstreamError, UpstreamsFailedError
from router.pool import AUTO
from router.record import Recorder
from router.request import ChatRequest
from router.sse import COMMENT, encode
from router.upstream import DONE, Reply, ReplyStream, Upstreams

CLIENT_CLOSED = "client_closed"
CLIENT_CLOSED_STATUS = 499  # as nginx counts it: no one was left to see a status
CLIENT_FAULT = "client_fault"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer for the client."""

    status: int
    body: dict[str, object]
    headers: dict[str, str]


class AnswerStream:
    """A streamed answer for the client: its headers, then its events. Always `aclose()` it."""

    def __init__(self, decision: Decision, model: str, stream: ReplyStream, recorder: Recorder) -> None:
        self.headers = decision.headers()
        self._decision = decision
        self._model = model
        self._stream = stream
        self._recorder = recorder

    async def events(self) -> AsyncGenerator[bytes]:
        """Each chunk under the pool's name, then `[DONE]`; or one error object where the upstream broke off."""
        try:
            async for chunk in self._stream:
                if chunk is None:
                    yield COMMENT
                    continue
                self._decision.count(chunk)
                chunk["model"] = self._model
                yield encode(json.dumps(chunk, separators=(",", ":")).encode())
        except UpstreamError as failure:
            self._decision.fail(failure)
            self._decision.close(200, f"stream_{failure.code}")
            error = {"message": f"the upstream broke off: {failure}", "type": "upstream_error", "param": None}
            yield encode(json.dumps({"error": {**error, "code": "upstream_stream_failed"}}).encode())
        else:
            self._decision.close(200)
            yield encode(DONE)

    async def aclose(self) -> None:
        """End the upstream's call and record how it went; without an end, it was the client who left."""
        try:
            await self._stream.aclose()
        finally:
            if not self._decision.status:
                self._decision.close(CLIENT_CLOSED_STATUS, CLIENT_CLOSED)
            self._recorder.record(self._decision)


class Service:
    """The router, as the endpoints see it."""

    def __init__(self, watch: ChampionWatch, upstreams: Upstreams, recorder: Recorder) -> None:
        self.watch = watch
        self._upstreams = upstreams
        self._recorder = recorder
        self._encoding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")

    def close(self) -> None:
        self._encoding.shutdown(cancel_futures=True)

    async def answer(self, request: ChatRequest, request_id: str) -> Answer | AnswerStream:
        """Choose a model, ask it and its fallbacks in turn, and record the decision."""
        decision = await self.decide(request, request_id)
        try:
            reply = await self._ask(decision, request)
        except UpstreamsFailedError as error:
            decision.measure()
            decision.close(error.status, error.code)
            error.decision_headers = decision.headers()
            self._recorder.record(decision)
            raise
        except asyncio.CancelledError:
            decision.close(CLIENT_CLOSED_STATUS, CLIENT_CLOSED)
            self._recorder.record(decision)
            raise
        decision.measure()
        if isinstance(reply, ReplyStream):
            assert decision.answered is not None
            return AnswerStream(decision, decision.answered.entry.name, reply, self._recorder)
        return self._finished(decision, reply)

    async def decide(self, request: ChatRequest, request_id: str) -> Decision:
        """Choose a model without asking it; one that the client names is the choice."""
        started = perf_counter()
        current = self.watch.current  # one reference for the whole request, whatever is promoted meanwhile
        if request.model != AUTO:
            choice = Option(named_entry(current.pool, request.model), None, None, 1.0)
            return Decision(request_id, None, None, (choice,), streamed=request.stream, started=started)
        if current.artifact is None:
            raise NoArtifactError(self.watch.missing)
        entries, reasons = eligible(current.pool, request)
        loop = asyncio.get_running_loop()
        p_correct = await loop.run_in_executor(self._encoding, forecast, current.artifact, request.text)
        decision = choose(request, request_id, current.pool, entries, reasons, p_correct)
        decision.artifact_id, decision.started = current.artifact.id, started
        return decision

    async def explain(self, request: ChatRequest, request_id: str) -> dict[str, object]:
        """Say what would be chosen and why, without asking any model; nothing is recorded."""
        current = self.watch.current
        if request.model != AUTO:
            return (await self.decide(request, request_id)).explain()
        if current.artifact is None:
            raise NoArtifactError(self.watch.missing)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._encoding, explain, request, request_id, current.artifact, current.pool)

    async def _ask(self, decision: Decision, request: ChatRequest) -> Reply | ReplyStream:
        """Ask the candidates in their order until one answers; UpstreamsFailedError where none does."""
        deadline = self._upstreams.deadline()
        send = self._upstreams.stream if request.stream else self._upstreams.complete
        failures: list[UpstreamError] = []
        refusal: Reply | None = None
        for option in decision.options:
            name, upstream = option.entry.name, option.entry.upstream
            assert upstream is not None, "only entries with an upstream are candidates"
            began = perf_counter()
            try:
                reply = await send(upstream, request.body_for(upstream.model), deadline)
            except UpstreamError as failure:
                failures.append(failure)
                decision.attempts.append(Attempt(name, failure.status, failure.code, perf_counter() - began))
                continue
            except asyncio.CancelledError:
                decision.attempts.append(Attempt(name, None, CLIENT_CLOSED, perf_counter() - began))
                raise
            if isinstance(reply, ReplyStream) or reply.status == 200:
                decision.attempts.append(Attempt(name, 200, None, perf_counter() - began))
                decision.answered = option
                return reply
            decision.attempts.append(Attempt(name, reply.status, CLIENT_FAULT, perf_counter() - began))
            if reply.status != 404:
                return reply
            refusal = reply  # perhaps only this upstream lost its model: another may still answer
        if refusal is not None and not failures:
            return refusal
        raise UpstreamsFailedError(failures, decision.attempts)

    def _finished(self, decision: Decision, reply: Reply) -> Answer:
        """Put our names and headers on a whole answer and record it."""
        if decision.answered is not None:
            reply.body["model"] = decision.answered.entry.name
            decision.count(reply.body)
        headers = decision.headers()
        if decision.cost_usd is not None:
            headers["x-embedrouter-cost-usd"] = f"{decision.cost_usd:.8f}"
        decision.close(reply.status, None if decision.answered else CLIENT_FAULT)
        self._recorder.record(decision)
        return Answer(reply.status, reply.body, headers)
