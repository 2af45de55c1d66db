"""Understand what an upstream answered: an answer, the client's fault, or a failure of this upstream.

Plain functions on a status, headers and bytes. An upstream's key never stands in what they return or raise.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, quote

from data.fast_json import dumps, read_object
from router.endpoints import Endpoint
from router.errors import UpstreamError
from router.pool import Upstream

# What the upstream says of the request itself: another upstream would say the same, unless `read_fault` knows better.
CLIENT_FAULTS = frozenset({400, 404, 405, 413, 422})
MAX_MESSAGE_CHARS = 300
MAX_WAIT_S = 86_400.0
CONTEXT_EXCEEDED = "context_length_exceeded"
LEAST_SECRET = 8  # characters; a shorter value of a query is a version or a name
MAX_READ_CHARS = 10_000  # of what an upstream complains of: more would keep others waiting

Fault = Literal["context", "absent", "client"]

# as OpenAI, vLLM, llama.cpp, Anthropic's and Google's endpoints, TGI and SGLang say it
_TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|maximum context|max_model_len|prompt is too long|too many (input )?tokens"
    r"|input (is too long|token count .{0,40} exceeds)|reduce the length|exceeds? the (maximum|model's) .{0,20}tokens",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9]{1,1000}(\.[0-9]{1,1000})?")


class Reply(NamedTuple):
    """A whole answer: status 200, or an error object that says what is wrong with the request.

    `fault` says whose doing that is: the prompt is too long for this model, this upstream has no such model or
    endpoint, or the client's, as far as this upstream knows (`router.complaints` knows more).
    """

    status: int
    body: dict[str, object]
    fault: Fault | None = None

    @property
    def error(self) -> dict[str, object]:
        """The error object; empty where it is an answer."""
        error = self.body.get("error")
        return error if isinstance(error, dict) else {}


def read_reply(
    status: int, headers: Mapping[str, str], content: bytes, upstream: Upstream, endpoint: Endpoint
) -> Reply:
    """Read a whole body; UpstreamError where this upstream failed."""
    body = read_object(content)
    if status in CLIENT_FAULTS:
        return _fault(status, content, upstream)
    if status != 200:
        said = said_in(body, upstream) or f"status {status}"
        raise UpstreamError(
            "http_status", f"status {status}: {said}", status=status, retry_after_s=retry_after_s(headers)
        )
    if body is None:
        raise UpstreamError("not_json", "it answered 200 with something that is no JSON object", status=200)
    if body.get("error"):
        if is_too_long(said_in(body, upstream)):
            return _fault(400, content, upstream)
        raise UpstreamError("error_in_answer", f"it answered 200 with an error: {said_in(body, upstream)}", status=200)
    answer = body.get(endpoint.answer)
    if not isinstance(answer, list):
        raise UpstreamError(f"no_{endpoint.answer}", f"it answered 200 without `{endpoint.answer}`", status=200)
    if endpoint.answer == "choices":
        _require_a_choice(answer, upstream)
    return Reply(200, body)


def _require_a_choice(choices: list[object], upstream: Upstream) -> None:
    """Refuse an answer whose choices all hold an error, or nothing; UpstreamError."""
    held = [choice for choice in choices if isinstance(choice, dict)]
    errors = [choice for choice in held if choice.get("error")]
    if errors and len(errors) == len(choices):
        message = f"it answered 200 with an error: {said_in(errors[0], upstream)}"
        raise UpstreamError("error_in_answer", message, status=200)
    if all(choice.get("message") is None and choice.get("text") is None for choice in held):
        raise UpstreamError("empty", "it answered 200 with no choice that holds anything", status=200)


def _fault(status: int, content: bytes, upstream: Upstream) -> Reply:
    body = read_object(content) or read_object(
        content.strip().removeprefix(b"[").removesuffix(b"]")
    )  # or a list of one
    if body is not None and (secrets := secrets_of(upstream)):
        written = dumps(body)  # as one writer escapes both: the upstream may have escaped them otherwise
        for secret in secrets:
            written = written.replace(dumps(secret)[1:-1], b"***")
        body = read_object(written)
    error = body.get("error") if body is not None else None
    if not isinstance(error, dict):
        body, error = {}, {"message": said_in(body, upstream) or redact(content.decode(errors="replace"), upstream)}
    status = 400 if status == 422 else status  # as every endpoint of OpenAI's says it
    message = error.get("message") or f"the upstream said {status}"
    error = {"type": "invalid_request_error", "param": None, "code": None, **error, "message": message}
    body = {**(body or {}), "error": error}
    said = f"{error.get('code')} {error.get('message')}"
    if is_too_long(said) or status == 413:
        return Reply(status, body, "context")
    return Reply(status, body, "absent" if status in (404, 405) else "client")


def is_too_long(said: str) -> bool:
    """Whether an error says that the prompt does not fit the model's context."""
    return _TOO_LONG.search(said[:MAX_READ_CHARS]) is not None


def too_long(failure: UpstreamError) -> Reply:
    """What a failure that says so is to the client, where nobody's context is larger."""
    error = {"message": str(failure), "type": "invalid_request_error", "param": None, "code": CONTEXT_EXCEEDED}
    return Reply(400, {"error": error}, "context")


def said_in(body: Mapping[str, object] | None, upstream: Upstream) -> str:
    """What an error object says, without the upstream's key."""
    error = (body or {}).get("error") or (body or {}).get("detail") or (body or {}).get("message")
    message = error.get("message") if isinstance(error, dict) else error
    return redact(str(message), upstream) if message else ""


def redact(text: str, upstream: Upstream) -> str:
    """Take an upstream's secrets out of a text, and cut it short."""
    read = text[:MAX_READ_CHARS]
    for secret in secrets_of(upstream):
        whole = read.replace(secret, "***")
        read = whole if len(text) <= MAX_READ_CHARS else whole[: -len(secret)]  # its end may be a part of one
    return read[:MAX_MESSAGE_CHARS]


@lru_cache(maxsize=1024)
def secrets_of(upstream: Upstream) -> tuple[str, ...]:
    """What nobody may see of an upstream: its key, and the query of its URL, which may hold one, as it may be told."""
    query = upstream.base_url.partition("?")[2]
    values = [value for _, value in parse_qsl(query) if len(value) >= LEAST_SECRET]
    found = (upstream.key or "", query, *values, *(quote(value, safe="") for value in values))
    return tuple(sorted({secret for secret in found if secret}, key=len, reverse=True))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The wait that a response asks for: `retry-after-ms`, else Retry-After in seconds or as a date (RFC 9110).

    At most MAX_WAIT_S; none where it names no time.
    """
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        if _NUMBER.fullmatch(value := headers.get(name, "").strip()):
            return min(float(value) * unit_s, MAX_WAIT_S)
    try:
        due = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):  # no date, or none that a clock could show
        return None
    due = due if due.tzinfo else due.replace(tzinfo=UTC)
    wait_s = (due - datetime.now(UTC)).total_seconds()
    return min(max(wait_s, 0.0), MAX_WAIT_S)
