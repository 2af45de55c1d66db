"""What the endpoints share of the wire: reading a body within its limits, who asks, and headers that can be sent."""

import asyncio
from collections.abc import Mapping
from typing import cast
from urllib.parse import quote

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from data import fast_json
from router.endpoints import CHAT, Endpoint
from router.errors import InvalidRequestError
from router.request import PromptRequest, read_request
from router.service import Service
from router.settings import Server, Settings
from router.until import until


class Json(Response):
    """JSON; what an upstream answers passes as it came, half a surrogate pair and a NaN included.

    JSON has neither, but those who send them can read them.
    """

    media_type = "application/json"

    def __init__(self, content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status_code = status
        self.background = None
        self.body = fast_json.dumps(content)
        self.raw_headers = [
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", b"application/json"),
            *((name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()),
        ]


def settings_of(request: Request) -> Settings:
    return cast(Settings, request.app.state.settings)


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


def headers_of(request: Request) -> dict[str, str]:
    """The request's headers by their names, the first of each; read once, while the framework's own search them all."""
    headers: dict[str, str] | None = request.scope.get("embedrouter.headers")
    if headers is None:
        raw = reversed(request.scope["headers"])
        headers = request.scope["embedrouter.headers"] = {k.decode("latin-1"): v.decode("latin-1") for k, v in raw}
    return headers


def authenticate(request: Request) -> str:
    """The name of the key that asks; InvalidApiKeyError where it is none of ours."""
    return cast(str, request.app.state.keys.identify(headers_of(request).get("authorization")))


async def prompt_request(request: Request, endpoint: Endpoint = CHAT) -> PromptRequest:
    """Authenticate, then read a request of an endpoint."""
    authenticate(request)
    settings = settings_of(request)
    content = await read_body(request, settings.server)
    return read_request(content, headers_of(request), settings.policy.policy, endpoint)


async def read_body(request: Request, limits: Server) -> bytes:
    """Read the body; 413 as soon as it says to be, or is, over the limit, and 408 where it stops coming."""
    announced = headers_of(request).get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > limits.max_body_bytes:
        raise _too_large(limits)
    loop = asyncio.get_running_loop()
    parts: list[bytes] = []
    size = 0
    try:
        with until(loop, loop.time() + limits.body_timeout_s) as patience:
            while True:
                event = await request.receive()
                if event["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(part := event.get("body", b""))
                size += len(part)
                if size > limits.max_body_bytes:
                    raise _too_large(limits)
                if not event.get("more_body", False):
                    break
                patience.reschedule(loop.time() + limits.body_timeout_s)
    except TimeoutError:
        message = f"no more of the body came for {limits.body_timeout_s:g} s, after {size} bytes"
        raise InvalidRequestError(message, status=408, code="body_timeout") from None
    return b"".join(parts)


def _too_large(limits: Server) -> InvalidRequestError:
    message = f"the body is larger than {limits.max_body_bytes} bytes, this router's limit"
    return InvalidRequestError(message, status=413, code="body_too_large")


def latin1(headers: dict[str, str]) -> dict[str, str]:
    """Headers that HTTP can carry: a model's name in another script is percent-encoded."""
    return {
        name: value if value.isascii() and value.isprintable() else quote(value, safe=" /:@")
        for name, value in headers.items()
    }
