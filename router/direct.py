"""The short way to the endpoints that carry the load: past the framework, whose layers cost as much as a choice.

The framework still knows these endpoints, for its document, and answers on them whatever this does not take.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from router.api.answering import EventStream, answer
from router.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

Refuse = Callable[[Request, Exception], Awaitable[Response]]


class Direct:
    """Answers prompts itself and passes all else on. `refusals` says how to answer where that raises.

    What else it raises is answered by `defect`, and raised again for the server to log.
    """

    def __init__(self, app: ASGIApp, refusals: Mapping[type[Exception], Refuse], defect: Refuse) -> None:
        self.app = app
        self._refusals = refusals
        self._defect = defect
        self._caught = tuple(refusals)
        endpoints = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS)
        self._endpoint_of = {f"{prefix}{each.path}": each for each in endpoints for prefix in ("", "/v1")}
        self._route_of = {path: Route(path, answer) for path in self._endpoint_of}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoint_of.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        scope["route"] = self._route_of[scope["path"]]
        request = Request(scope, receive)
        response: Response | None = None
        try:
            response = await answer(request, endpoint)
            await response(scope, receive, send)
        except self._caught as error:
            refuse = next(refuse for kind, refuse in self._refusals.items() if isinstance(error, kind))
            response = await refuse(request, error)
            await response(scope, receive, send)
        except Exception as error:
            if response is None or (isinstance(response, EventStream) and not response.began):
                response = await self._defect(request, error)
                await response(scope, receive, send)
            raise
