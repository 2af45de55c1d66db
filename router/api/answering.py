"""Answer a request with a prompt on whatever endpoint it came: whole or as events, for as long as the client stays."""

import asyncio
import json
import logging

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.api.wire import Json, headers_of, latin1, prompt_request, service_of, settings_of
from router.decision import Decision
from router.endpoints import Endpoint
from router.errors import ApiError, InternalError
from router.joined_head import ABORT
from router.relay import broken_off
from router.request import PromptRequest
from router.service import CLIENT_CLOSED_STATUS, SHUT_DOWN_STATUS, SHUTS_DOWN, Answer, AnswerStream, Service
from router.sse import COMMENT
from router.until import alarms_of, until

logger = logging.getLogger(__name__)

DEBUG = "x-embedrouter-debug"
GRACE_S = 0.1
STALL_S = 5.0  # beyond the time that its upstream has, in which a client may take the rest of a stream
EXPLAIN_S = 5.0  # an answer that is there waits no longer for its explanation
EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
EVENT_STREAM += [(b"x-accel-buffering", b"no")]


async def answer(request: Request, endpoint: Endpoint) -> Response:
    """Answer with the model that the policy chooses (`model: "auto"`), or with the model that is named."""
    service = service_of(request)
    decision: Decision | None = None
    answered: Answer | None = None
    debug = headers_of(request).get(DEBUG) == "true"
    try:
        wanted = await prompt_request(request, endpoint)
        with leaving_cancels(request.receive):
            decision = await service.decide(wanted, request.scope["state"]["request_id"])
            if wanted.stream:
                return EventStream(service, decision, wanted, settings_of(request).timeouts.keep_alive_s, debug)
            answered = await service.complete(decision, wanted)
        if debug:
            answered.body["embedrouter"] = await explained(service, decision)
    except ClientLeftError:
        if decision is not None:
            service.give_up(decision)
        return Response(status_code=CLIENT_CLOSED_STATUS)
    except asyncio.CancelledError:  # the server's, which has waited long enough: it is about to end
        if answered is None:
            if decision is not None:
                service.give_up(decision, client_left=False)
            return shuts_down(decision)
    return json_of(answered)


def json_of(answered: Answer) -> Json:
    return Json(answered.body, answered.status, latin1(answered.headers))


def shuts_down(decision: Decision | None) -> Json:
    """What a client is told that a router which shuts down could not answer."""
    headers = {} if decision is None else latin1(decision.headers())
    return Json({"error": SHUTS_DOWN}, SHUT_DOWN_STATUS, {**headers, "connection": "close"})


async def explained(service: Service, decision: Decision) -> dict[str, object]:
    """What explains an answer, or a note that nothing does: the answer itself is paid for and must not be lost."""
    loop = asyncio.get_running_loop()
    try:
        with until(loop, loop.time() + EXPLAIN_S):
            return await service.explain_answer(decision)
    except Exception:
        logger.exception("an answer could not be explained")
        return {"note": f"no explanation: it failed or took longer than {EXPLAIN_S:g} s; the router's log says which"}


class EventStream(Response):
    """Asks, then sends each event as it comes, and ends the upstream's call when the client leaves.

    An answer that begins, or fails, within `keep_alive_s` has headers that say so. A client that waits longer gets its
    headers then, of the decision alone, and is told of a failure in an event, as it would be later on.
    """

    def __init__(
        self, service: Service, decision: Decision, request: PromptRequest, keep_alive_s: float, debug: bool
    ) -> None:
        self.status_code = 200
        self.background = None
        self._service = service
        self._decision = decision
        self._request = request
        self._keep_alive_s = keep_alive_s
        self._debug = debug

    @property
    def began(self) -> bool:
        """Whether the client has its status and headers, or is getting them: before, it can be answered otherwise."""
        return self._decision.began

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        events = Events(send, self._decision, self._keep_alive_s)
        answered: Answer | AnswerStream | None = None
        last_word = b""
        try:
            with leaving_cancels(receive):
                answered = await self._answer(scope)
                if isinstance(answered, AnswerStream):
                    await self._send(answered, events, scope)
                elif self.began:
                    await events.end(broken_off(self._request.endpoint, answered.body))
                else:
                    events.close()
                    await json_of(answered)(scope, receive, send)
        except ClientLeftError:
            events.close()
            if answered is None:
                self._service.give_up(self._decision)
            if not self.began and not isinstance(answered, Answer):
                await Response(status_code=CLIENT_CLOSED_STATUS)(scope, receive, send)
        except asyncio.CancelledError:  # the server's, which has waited long enough: it is about to end
            events.close()
            if isinstance(answered, AnswerStream):
                last_word = answered.cut()
            elif answered is None:
                self._service.give_up(self._decision, client_left=False)
                if self.began:
                    last_word = broken_off(self._request.endpoint, {"error": SHUTS_DOWN})
                else:
                    await shuts_down(self._decision)(scope, receive, send)
        finally:
            events.close()
            if events.began_early:
                scope["state"]["headers"] = self._decision.headers()
            if isinstance(answered, AnswerStream):
                await answered.aclose()  # before anything that waits: where the server stops, so does the recorder
            if last_word:
                await events.end(last_word)

    async def _answer(self, scope: Scope) -> Answer | AnswerStream:
        """Ask; what fails once the client has its headers is an answer that holds the error."""
        try:
            return await self._service.stream(self._decision, self._request)
        except Exception as error:
            if not self.began:
                raise
            if not isinstance(error, ApiError):
                logger.exception("a stream failed by a defect of the router")
                error = InternalError("the router failed on this stream")
            scope["state"] |= {"error": error.code, "status": error.status}
            return Answer(error.status, error.body(), {}, self._decision)

    async def _send(self, stream: AnswerStream, events: "Events", scope: Scope) -> None:
        """Send all events; ClientLeftError where the client does not take them, whose connection is cut then."""
        loop = asyncio.get_running_loop()
        try:
            with until(loop, stream.deadline + STALL_S):
                if self._debug:  # in a comment, which every client skips
                    comment = json.dumps(await explained(self._service, self._decision), separators=(",", ":"))
                    await events.send(f": embedrouter {comment}\n\n".encode())
                async for event in stream.events():
                    await events.send(event)
                await events.end()
        except TimeoutError:
            stream.stall()
            if (abort := scope.get("extensions", {}).get(ABORT)) is not None:
                abort["call"]()
                await asyncio.sleep(0)  # the server learns of it when the loop has turned
            raise ClientLeftError from None


class Events:
    """The events of one answer on the wire, the headers before the first, and a comment where none comes for long."""

    def __init__(self, send: Send, decision: Decision, keep_alive_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._send = send
        self._loop = loop
        self._decision = decision
        self._keep_alive_s = keep_alive_s
        self._beat: asyncio.Task[None] | None = None
        self._has_head = False
        self.began_early = False
        self.at = loop.time() + keep_alive_s
        self._alarms = alarms_of(loop)
        self._alarms.add(self)

    def ring(self) -> None:
        """Nothing came for as long as a client, or what stands between, should wait."""
        if not self._decision.began:
            self._decision.began = self.began_early = True
        if self._beat is None or self._beat.done():
            self._beat = asyncio.create_task(self._write(COMMENT))
        self.at = self._loop.time() + self._keep_alive_s
        self._alarms.add(self)

    async def send(self, event: bytes) -> None:
        if (beat := self._beat) is not None:  # one after the other, also where the client reads slowly
            await asyncio.shield(beat)
            self._beat = None if self._beat is beat else self._beat
        await self._write(event)

    async def end(self, event: bytes = b"") -> None:
        """Send a last event, which may be none, and the end."""
        self._alarms.remove(self)
        await self.send(event)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def close(self) -> None:
        """Begin no comment any more."""
        self._alarms.remove(self)

    async def _write(self, event: bytes) -> None:
        if not self._has_head:
            self._has_head = self._decision.began = True
            said = latin1(self._decision.headers()).items()
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said]
            try:
                await self._send({"type": "http.response.start", "status": 200, "headers": [*EVENT_STREAM, *headers]})
            except asyncio.CancelledError:
                self._has_head = False  # it waited for its turn, and what comes now needs it
                raise
        self.at = self._loop.time() + self._keep_alive_s
        if event:
            await self._send({"type": "http.response.body", "body": event, "more_body": True})


class ClientLeftError(Exception):
    """The client closed its connection before it had its answer."""


class leaving_cancels:  # noqa: N801  reads as a verb, like asyncio.timeout
    """Cancel what runs inside when the client leaves; it then raises ClientLeftError.

    It looks up only after GRACE_S: most of what is over by then need never have been watched.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        inside = asyncio.current_task(loop)
        assert inside is not None
        self._inside = inside
        self.at = loop.time() + GRACE_S
        self._alarms = alarms_of(loop)
        self._alarms.add(self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._alarms.remove(self)
        if self._watching is not None:
            self._watching.cancel()
        if kind is asyncio.CancelledError and self._left and self._inside.uncancel() == 0:
            raise ClientLeftError from None

    def ring(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._inside.cancel()
