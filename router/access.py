"""Around every request: its id on every response and log line, its count, and its line in the access log."""

import logging
import re
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.ids import new_id
from router.logs import REQUEST_ID, log_fields
from router.metrics import Metrics

logger = logging.getLogger("router.access")

HEADER = b"x-request-id"
SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
UNMATCHED = "unmatched"  # a path that is none of ours may hold anything: neither log nor label repeats it
# header of the answer -> what the log calls it
SAID = {
    b"x-embedrouter-decision-id": "decision_id",
    b"x-embedrouter-model": "model",
    b"x-embedrouter-policy": "policy",
    b"x-embedrouter-attempts": "attempts",
}


class Access:
    """Gives every response an x-request-id, the client's where it is sane, and counts and logs it when it ends."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")
        request_id = given.decode() if SANE_ID.fullmatch(given) else f"req-{new_id()}"
        scope.setdefault("state", {})["request_id"] = request_id
        REQUEST_ID.set(request_id)  # each request runs in a context of its own
        header = (HEADER, request_id.encode())
        status = 500  # what the server says where the application raises
        said: dict[str, str] = {}

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message["headers"]:
                    if name in SAID:
                        said[SAID[name]] = value.decode("latin-1")
                message["headers"] = [*message["headers"], header]
            await send(message)

        self.metrics.n_in_flight += 1
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self.metrics.n_in_flight -= 1
            for name, value in scope["state"].get("headers", {}).items():  # what was not known when they were sent
                if name.encode() in SAID:
                    said[SAID[name.encode()]] = value
            endpoint = getattr(scope.get("route"), "path", UNMATCHED)
            self.metrics.count_request(endpoint, status, said.get("model", ""), said.get("policy", ""))
            level = logging.INFO if scope["state"].get("status", status) < 500 else logging.WARNING
            if logger.isEnabledFor(level):
                latency_ms = round((perf_counter() - started) * 1e3, 3)
                fields = {"method": scope["method"], "endpoint": endpoint, "status": status, "latency_ms": latency_ms}
                if (error := scope["state"].get("error")) is not None:
                    said["error"] = error
                log_fields(logger, level, "request", {"request_id": request_id, **fields, **said})
