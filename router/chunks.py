"""What one event of a stream means: nothing yet, content, the end, or a failure."""

from enum import Enum, auto

from data.fast_json import read_object
from router.endpoints import Endpoint
from router.errors import UpstreamError
from router.pool import Upstream
from router.reply import said_in

Chunk = dict[str, object]

# typed events that only say that an answer is on its way
_OPENING = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDING = frozenset({"response.completed", "response.incomplete"})


class Progress(Enum):
    """How far a stream is. Before its first CONTENT another upstream may still answer instead."""

    NOTHING = auto()
    CONTENT = auto()
    FINISHED = auto()


def read_chunk(data: bytes, upstream: Upstream) -> Chunk:
    """Read an event's data; UpstreamError where it is no JSON object, or one that says an error."""
    chunk = read_object(data)
    if chunk is None:
        raise UpstreamError("not_json", "a chunk of its stream is no JSON object", status=200)
    failed = chunk.get("type") in ("error", "response.failed")
    if chunk.get("error") or failed:
        response = chunk.get("response")
        said = said_in(response if isinstance(response, dict) else chunk, upstream)
        raise UpstreamError("error_in_answer", f"its stream says: {said or 'an error'}", status=200)
    return chunk


def progress_of(chunk: Chunk, endpoint: Endpoint) -> Progress:
    """What a chunk brings."""
    if endpoint.typed:
        kind = chunk.get("type")
        if not isinstance(kind, str):  # nobody can tell what such an event brings
            return Progress.NOTHING
        if kind in _ENDING:
            return Progress.FINISHED
        return Progress.NOTHING if kind in _OPENING else Progress.CONTENT
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return Progress.NOTHING
    progress = Progress.NOTHING
    for choice in choices:
        if not isinstance(choice, dict):
            continue
        if choice.get("finish_reason"):
            return Progress.FINISHED
        delta = choice.get("delta")
        if choice.get("text") or (isinstance(delta, dict) and any(v for k, v in delta.items() if k != "role")):
            progress = Progress.CONTENT
    return progress
