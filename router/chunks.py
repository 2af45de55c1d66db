"""What the events of a stream mean: nothing yet, content, the end, or a failure."""

from collections.abc import Mapping

from data.fast_json import read_object
from router.endpoints import Endpoint
from router.errors import UpstreamError
from router.pool import Upstream
from router.reply import is_too_long, said_in

Chunk = dict[str, object]
CONTEXT_LENGTH = "context_length"  # the prompt does not fit this model's; a larger one may take it

# typed events that only say that an answer is on its way
_OPENING = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDING = frozenset({"response.completed", "response.incomplete"})


def read_chunk(data: bytes, upstream: Upstream) -> Chunk:
    """Read an event's data; UpstreamError where it is no JSON object, or one that says an error."""
    chunk = read_object(data)
    if chunk is None:
        raise UpstreamError("not_json", "a chunk of its stream is no JSON object", status=200)
    failed = chunk.get("type") in ("error", "response.failed")
    if chunk.get("error") or failed:
        response = chunk.get("response")
        said = said_in(response if isinstance(response, dict) else chunk, upstream)
        if is_too_long(said):
            raise UpstreamError(CONTEXT_LENGTH, f"its stream says: {said}", status=200)
        raise UpstreamError("error_in_answer", f"its stream says: {said or 'an error'}", status=200)
    return chunk


def n_choices(body: Mapping[str, object]) -> int:
    """How many choices a request asks for: `n` for each of its prompts."""
    n, prompts = body.get("n"), body.get("prompt")
    n = n if isinstance(n, int) else 1
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):  # numbers are one prompt's tokens
        n *= len(prompts)
    return max(n, 1)


class Course:
    """How far an answer is that comes in chunks: which of its choices have begun, and which are finished."""

    __slots__ = ("_finished", "_open", "_typed")

    def __init__(self, endpoint: Endpoint) -> None:
        self._typed = endpoint.typed
        self._open: set[int] = set()
        self._finished: set[int] = set()

    def is_finished(self, n: int = 1) -> bool:
        """Whether every choice that began is finished, and at least n are."""
        return not self._open and len(self._finished) >= n

    def note(self, chunk: Chunk) -> bool:
        """Follow one chunk; whether it brings content or an end. Until then another upstream may still answer."""
        if self._typed:
            kind = chunk.get("type")
            if not isinstance(kind, str):  # nobody can tell what such an event brings
                return False
            if kind in _ENDING:
                self._finished.add(0)
            return kind not in _OPENING
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return False
        brings = False
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            if not isinstance(index, int):
                index = 0
            if choice.get("finish_reason"):
                self._finished.add(index)
                self._open.discard(index)
                brings = True
                continue
            if index not in self._finished:  # some say more of a finished one, as what a filter thinks of it
                self._open.add(index)
            delta = choice.get("delta")
            if choice.get("text") or (isinstance(delta, dict) and any(v for k, v in delta.items() if k != "role")):
                brings = True
        return brings
