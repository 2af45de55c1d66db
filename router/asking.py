"""Ask the candidates of a decision in their order, until one answers.

Says after which answers another candidate is asked, and keeps what is learned on the way: which upstreams fail, refuse
a parameter, or are slow. It knows nothing of the client's connection.
"""

import asyncio
from dataclasses import dataclass, replace
from time import perf_counter

from data import fast_json
from router.chunks import CONTEXT_LENGTH
from router.complaints import is_named, lacks_endpoint, refusal_in
from router.decision import CLIENT_CLOSED, Decision, Option
from router.eligibility import OUT_OF_QUOTA, out_of_quota
from router.endpoints import CHAT
from router.errors import Attempt, UpstreamError, UpstreamsFailedError
from router.observed import Observed
from router.parameters import AS_IT_COMES
from router.pool import PoolEntry, Upstream
from router.refusals import Refusal
from router.reply import Reply
from router.request import PromptRequest
from router.upstream import ReplyStream, Upstreams

CLIENT_FAULT = "client_fault"
USAGE_OPTION = "stream_options"
ADDED_USAGE = "+stream_options"  # refused though the client never asked for it


@dataclass(slots=True)
class Tried:
    """What the candidates so far have said. `window` is the largest context that the prompt did not fit."""

    failures: list[UpstreamError]
    refusals: list[tuple[Upstream, Refusal]]
    refusal: Reply | None = None
    window: int | None = None


class Asker:
    """Asks upstreams and remembers how they did."""

    def __init__(self, upstreams: Upstreams, observed: Observed) -> None:
        self._upstreams = upstreams
        self._observed = observed

    async def ask(self, decision: Decision, request: PromptRequest) -> Reply | ReplyStream:
        """Ask until one answers; an error Reply is what the client should see, UpstreamsFailedError that none did."""
        deadline = self._upstreams.deadline()
        tried = Tried([], [])
        options = list(decision.options)
        for place, option in enumerate(options):
            entry = option.entry
            if place < len(decision.options) - 1 and self._fails_by_now(decision, entry):
                options.append(option)
                continue
            if tried.window is not None and entry.context_window is not None and entry.context_window <= tried.window:
                continue
            if (tried.failures or tried.refusal) and self._upstreams.now() >= deadline:
                break
            wait_s = self._observed.breakers.retry_after_s(entry.upstream)
            if wait_s is not None:
                tried.failures.append(out_of_quota(entry, wait_s))
                continue
            reply = await self._attempt(decision, option, request, deadline, tried)
            if reply is not None:
                return reply
        if tried.refusal is not None and not tried.failures:
            return tried.refusal
        raise UpstreamsFailedError([*self._waits(decision), *tried.failures], decision.attempts)

    def _fails_by_now(self, decision: Decision, entry: PoolEntry) -> bool:
        """Whether a circuit opened, or its probe went out with another request, since the choice was made."""
        breakers = self._observed.breakers
        if not breakers.has_failures or entry.name in decision.failing:
            return False
        return breakers.state(entry.upstream) == "open"

    def _waits(self, decision: Decision) -> list[UpstreamError]:
        """What those said that were not asked, being out of quota: theirs may be the least wait."""
        left_out = [o.entry for o in decision.others if (o.excluded or "").startswith(OUT_OF_QUOTA)]
        waits = [(entry, self._observed.breakers.retry_after_s(entry.upstream)) for entry in left_out]
        return [out_of_quota(entry, wait_s) for entry, wait_s in waits if wait_s is not None]

    async def _attempt(
        self, decision: Decision, option: Option, request: PromptRequest, deadline: float, tried: Tried
    ) -> Reply | ReplyStream | None:
        """Ask one candidate; none where the next is to be asked."""
        entry, upstream = option.entry, option.entry.upstream
        assert upstream is not None, "only entries with an upstream are candidates"
        breakers = self._observed.breakers
        left_s = deadline - self._upstreams.now()
        asked_at = breakers.ask(upstream, left_s)
        began = perf_counter()
        try:
            reply = await self._send(entry, upstream, request, deadline)
        except UpstreamError as failure:
            if failure.code == "total_timeout" and decision.attempts and left_s < self._upstreams.first_token_s:
                breakers.abandoned(upstream)  # those before it took the time that it should have had
            else:
                breakers.failed(upstream, failure.retry_after_s if failure.status == 429 else None, asked_at)
            decision.attempts.append(Attempt(entry.name, failure.status, failure.code, perf_counter() - began))
            tried.failures.append(failure)
            return None
        except asyncio.CancelledError:
            breakers.abandoned(upstream)
            decision.attempts.append(Attempt(entry.name, None, CLIENT_CLOSED, perf_counter() - began))
            raise
        except Exception:  # a defect of ours: it says nothing of the upstream
            breakers.abandoned(upstream)
            raise
        took_s = perf_counter() - began
        if isinstance(reply, ReplyStream) or reply.fault is None:
            breakers.succeeded(upstream, asked_at)
            if isinstance(reply, Reply):
                self._observed.latencies.add(upstream, took_s)
            for refuser, refusal in tried.refusals:
                self._observed.refusals.remember(refuser, refusal, request.body)
            decision.attempts.append(Attempt(entry.name, 200, None, took_s))
            decision.answered, decision.asked_at = option, asked_at
            return reply
        if reply.fault == "absent" and request.endpoint is CHAT:
            breakers.failed(upstream, asked_at=asked_at)
        else:
            breakers.succeeded(upstream, asked_at)
        return self._refused(decision, entry, upstream, request, reply, took_s, tried)

    def _refused(
        self,
        decision: Decision,
        entry: PoolEntry,
        upstream: Upstream,
        request: PromptRequest,
        reply: Reply,
        took_s: float,
        tried: Tried,
    ) -> Reply | None:
        """Weigh a refusal: none where another candidate may think otherwise, else what the client should see."""
        refusal = _refusal_of(reply, entry, upstream, request)
        error = CLIENT_FAULT
        if reply.fault == "context":
            error, tried.window = CONTEXT_LENGTH, max(tried.window or 0, entry.context_window or 0)
        elif request.endpoint is not CHAT and lacks_endpoint(reply, request.endpoint):
            error, refusal = "no_endpoint", Refusal(request.endpoint.path, any_value=True)
        elif refusal is not None:
            error = "parameter_refused"
        decision.attempts.append(Attempt(entry.name, reply.status, error, took_s))
        if refusal is not None:
            tried.refusals.append((upstream, refusal))
        elif reply.fault == "client":
            return reply
        tried.refusal = reply
        return None

    async def _send(
        self, entry: PoolEntry, upstream: Upstream, request: PromptRequest, deadline: float
    ) -> Reply | ReplyStream:
        """Send a request as this upstream takes it; once more where it may not report the usage of streams."""
        with_usage = self._adds_usage(entry, upstream, request)
        send = self._upstreams.stream if request.stream else self._upstreams.complete
        body = body_for(entry, upstream, request, with_usage=with_usage)
        reply = await send(upstream, request.endpoint, fast_json.dumps(body), deadline)
        if not with_usage:
            return reply
        takers = self._observed.usage_takers
        if isinstance(reply, ReplyStream):
            takers.add(upstream)
            return reply
        if USAGE_OPTION in request.body:
            return reply
        refusal = refusal_in(reply, body)
        names_it = refusal is not None and refusal.parameter == USAGE_OPTION
        is_of_else = refusal is not None or reply.fault != "client" or is_named(reply) or upstream in takers
        if not names_it and is_of_else:
            return reply
        body = body_for(entry, upstream, request, with_usage=False)
        try:
            again = await send(upstream, request.endpoint, fast_json.dumps(body), deadline)
        except UpstreamError:
            if names_it:
                raise
            return reply  # which is an answer, if not a good one
        if names_it or isinstance(again, ReplyStream):
            self._observed.refusals.remember(upstream, Refusal(ADDED_USAGE, any_value=True), {})
        return again

    def _adds_usage(self, entry: PoolEntry, upstream: Upstream, request: PromptRequest) -> bool:
        """Whether to ask for a stream's usage in the client's place: it is recorded, and shown to who asked."""
        options = request.body.get(USAGE_OPTION)
        return (
            request.stream
            and not request.endpoint.typed
            and (options is None or isinstance(options, dict))
            and USAGE_OPTION not in entry.parameters.drop
            and self._observed.refusals.refused(upstream, {ADDED_USAGE: None}) is None
        )


def _refusal_of(reply: Reply, entry: PoolEntry, upstream: Upstream, request: PromptRequest) -> Refusal | None:
    """The parameter that a refusal names, as the client calls it: what was sent may have it under another name."""
    refusal = refusal_in(reply, body_for(entry, upstream, request, with_usage=False))
    if refusal is None or refusal.parameter in request.body:
        return refusal
    return replace(refusal, parameter=entry.parameters.name_before(refusal.parameter))


def body_for(entry: PoolEntry, upstream: Upstream, request: PromptRequest, *, with_usage: bool) -> dict[str, object]:
    """The body to send: as received, under the upstream's name for the model, rewritten by the entry's rules."""
    body = {**request.body, "model": upstream.model}
    if with_usage:
        options = request.body.get(USAGE_OPTION)
        body[USAGE_OPTION] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return body if entry.parameters is AS_IT_COMES else entry.parameters.apply(body)
