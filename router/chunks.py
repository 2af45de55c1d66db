"""What the events of a stream mean: nothing yet, content, the end, or a failure."""

from collections.abc import Mapping

from data.fast_json import read_object
from router.endpoints import Endpoint
from router.errors import UpstreamError
from router.pool import Upstream
from router.reply import is_too_long, said_in
from router.sse import Event

Chunk = dict[str, object]
CONTEXT_LENGTH = "context_length"  # the prompt does not fit this model's; a larger one may take it

# typed events that only say that an answer is on its way
_OPENING = (".created", ".in_progress", ".queued", ".added", "keepalive", "ping")
_ENDING = frozenset({"response.completed", "response.incomplete"})


def read_chunk(event: Event, upstream: Upstream) -> Chunk:
    """Read an event's data; UpstreamError where it is no JSON object, or one that says an error."""
    chunk = read_object(event.data or b"")
    if chunk is None:
        raise UpstreamError("not_json", "a chunk of its stream is no JSON object", status=200)
    failed = event.is_error or chunk.get("type") in ("error", "response.failed") or chunk.get("object") == "error"
    choices = chunk.get("choices")
    broken = None
    if isinstance(choices, list):
        broken = next((c for c in choices if isinstance(c, dict) and _is_broken(c)), None)
    if chunk.get("error") or failed or broken is not None:
        response = broken or chunk.get("response")
        said = said_in(response if isinstance(response, dict) else chunk, upstream)
        if is_too_long(said):
            raise UpstreamError(CONTEXT_LENGTH, f"its stream says: {said}", status=200)
        raise UpstreamError("error_in_answer", f"its stream says: {said or 'an error'}", status=200)
    return chunk


def _is_broken(choice: Chunk) -> bool:
    return bool(choice.get("error")) or choice.get("finish_reason") == "error"


def as_chunks(answer: Chunk) -> list[Chunk]:
    """The chunks of an answer that came whole: each choice at once, its end, and the usage."""
    envelope = {key: value for key, value in answer.items() if key not in ("choices", "usage")}
    if envelope.get("object") == "chat.completion":
        envelope["object"] = "chat.completion.chunk"
    choices = answer.get("choices")
    chunks: list[Chunk] = []
    for place, choice in enumerate(choices if isinstance(choices, list) else ()):
        if not isinstance(choice, dict):
            continue
        said = {"index": place, **choice, "finish_reason": None}
        if isinstance(message := said.pop("message", None), dict):
            said["delta"] = message
            if isinstance(calls := message.get("tool_calls"), list):  # in a stream each says which it is
                calls = [{"index": n, **call} if isinstance(call, dict) else call for n, call in enumerate(calls)]
                said["delta"] = {**message, "tool_calls": calls}
        nothing: Chunk = {"delta": {}} if "delta" in said else {"text": ""}
        end = {"index": said["index"], "finish_reason": choice.get("finish_reason") or "stop", **nothing}
        chunks += [{**envelope, "choices": [said]}, {**envelope, "choices": [end]}]
    usage = answer.get("usage")
    return [*chunks, {**envelope, "choices": [], "usage": usage}] if usage else chunks


def n_choices(body: Mapping[str, object]) -> int:
    """How many choices a request asks for: `n` for each of its prompts."""
    n, prompts = body.get("n"), body.get("prompt")
    n = n if isinstance(n, int) else 1
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):  # numbers are one prompt's tokens
        n *= len(prompts)
    return max(n, 1)


class Course:
    """How far an answer is that comes in chunks: which of its choices have begun, and which are finished."""

    __slots__ = ("_calls_tools", "_finished", "_is_told", "_open", "_typed")

    def __init__(self, endpoint: Endpoint) -> None:
        self._typed = endpoint.typed
        self._open: set[int] = set()
        self._finished: set[int] = set()
        self._is_told = endpoint.typed
        self._calls_tools = False

    def is_finished(self, n: int = 1) -> bool:
        """Whether every choice that began is finished, and at least n are."""
        return not self._open and len(self._finished) >= n

    def is_over(self, n: int = 1) -> bool:
        """Whether nothing more is to come; not so sure of those who say with each piece that it is the last.

        Nor of those who call tools of their own, and go on.
        """
        return self._is_told and not self._calls_tools and self.is_finished(n)

    def note(self, chunk: Chunk) -> bool:
        """Follow one chunk; whether it brings content or an end. Until then another upstream may still answer."""
        if self._typed:
            kind = chunk.get("type")
            if not isinstance(kind, str):  # nobody can tell what such an event brings
                return False
            if kind in _ENDING:
                self._finished.add(0)
            return not kind.endswith(_OPENING)
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
            delta = choice.get("delta")
            says = choice.get("text") or (isinstance(delta, dict) and any(v for k, v in delta.items() if k != "role"))
            if reason := choice.get("finish_reason"):
                self._calls_tools = reason in ("tool_calls", "function_call")
                self._finished.add(index)
                self._open.discard(index)
                brings = True
                continue
            if says:
                brings = self._is_told = True
                self._finished.discard(index)
            if index not in self._finished:  # some say more of a finished one, as what a filter thinks of it
                self._open.add(index)
        return brings
