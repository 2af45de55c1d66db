"""Write what a client sees of a stream, in the form of its endpoint.

One event for each chunk of the upstream, under our names: a constant id, time and model, usage once at the end and only
for those who asked, one error object where the upstream broke off. Tool calls and unknown fields pass as they came.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from data import fast_json
from router.chunks import Chunk
from router.endpoints import Endpoint
from router.request import PromptRequest
from router.sse import DONE, encode


class Relay(Protocol):
    """What one endpoint's stream looks like."""

    def event(self, chunk: Chunk) -> bytes | None:
        """The event for a chunk; none where the client need not see it."""

    def end(self) -> bytes:
        """What stands after the last chunk."""

    def failure(self, error: Mapping[str, object]) -> bytes:
        """The one event that says that the answer broke off."""


def relay_for(request: PromptRequest, model: str, opening: Sequence[Chunk]) -> Relay:
    """A relay for one answer, whose model the client knows under this name and of which the first chunks are there."""
    return TypedRelay(model) if request.endpoint.typed else ChoiceRelay(request, model, opening)


def broken_off(endpoint: Endpoint, body: Mapping[str, object]) -> bytes:
    """The one event of an answer that failed before it had any other; `body` is what it would have been as a whole."""
    error = body.get("error")
    assert isinstance(error, dict), "only what failed has broken off"
    return TypedRelay("").failure(error) if endpoint.typed else _event({"error": error})


class ChoiceRelay:
    """Chunks of `choices`, ended by `[DONE]`: chat completions and completions."""

    def __init__(self, request: PromptRequest, model: str, opening: Sequence[Chunk]) -> None:
        self._model = model
        self._wants_usage = request.wants_usage
        options = request.body.get("stream_options")
        self._usage_always = isinstance(options, dict) and bool(options.get("continuous_usage_stats"))
        self._id = _first_said("id", opening)
        self._created = _first_said("created", opening)
        self._usage: object = None
        self._last: Chunk = {}

    def event(self, chunk: Chunk) -> bytes | None:
        chunk["model"] = self._model
        if self._id is not None:
            chunk["id"] = self._id
        if self._created is not None:
            chunk["created"] = self._created
        self._last = chunk
        if not self._usage_always and "usage" in chunk:
            usage = chunk["usage"]
            self._usage = usage or self._usage
            if usage and not chunk.get("choices"):
                return None  # it comes once, at the end
            if self._wants_usage:
                chunk["usage"] = None
            else:
                del chunk["usage"]
        return _event(chunk)

    def end(self) -> bytes:
        if not self._wants_usage or self._usage is None:
            return encode(DONE)
        kept = {key: value for key, value in self._last.items() if key not in ("choices", "usage", "obfuscation")}
        return _event(type(self._last)({**kept, "choices": [], "usage": self._usage})) + encode(DONE)

    def failure(self, error: Mapping[str, object]) -> bytes:
        return _event({"error": error})


class TypedRelay:
    """Typed events, of which the last carries the whole answer: responses."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._number = 0

    def event(self, chunk: Chunk) -> bytes | None:
        response = chunk.get("response")
        if isinstance(response, dict) and "model" in response:
            response["model"] = self._model
        number = chunk.get("sequence_number")
        self._number = number if isinstance(number, int) else self._number + 1
        return _typed(chunk)

    def end(self) -> bytes:
        return b""

    def failure(self, error: Mapping[str, object]) -> bytes:
        return _typed({**error, "type": "error", "sequence_number": self._number + 1, "error": error})


def _first_said(name: str, opening: Sequence[Chunk]) -> object:
    """What the first chunk that says anything says; some open with an empty id and no time."""
    said = [chunk.get(name) for chunk in opening]
    return next(filter(None, said), said[0])


def _event(chunk: Chunk) -> bytes:
    return encode(fast_json.dumps(chunk))


def _typed(chunk: Chunk) -> bytes:
    kind = str(chunk.get("type", "message")).replace("\n", " ").replace("\r", " ")
    return b"event: " + kind.encode("utf-8", "replace") + b"\n" + _event(chunk)
