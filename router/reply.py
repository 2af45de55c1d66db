"""Understand what an upstream answered: an answer, the client's fault, or a failure of this upstream.

Plain functions on a status, headers and bytes. An upstream's key never stands in what they return or raise.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

from data.fast_json import dumps, read_object
from router.endpoints import Endpoint
from router.errors import UpstreamError
from router.parameters import FIXED
from router.pool import Upstream
from router.refusals import Refusal

# What the upstream says of the request itself: another upstream would say the same, unless `read_fault` knows better.
CLIENT_FAULTS = frozenset({400, 404, 405, 413, 422})
MAX_MESSAGE_CHARS = 300
MAX_WAIT_S = 86_400.0
CONTEXT_EXCEEDED = "context_length_exceeded"
LEAST_BARE_WORD = 8  # letters; a shorter one without quotes, such as user or stop, is just a word

Fault = Literal["context", "absent", "client"]

# as OpenAI, vLLM, llama.cpp, Anthropic's and Google's endpoints, TGI and SGLang say it
_TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|maximum context|max_model_len|prompt is too long|too many (input )?tokens"
    r"|input (is too long|token count .{0,40} exceeds)|reduce the length|exceeds? the (maximum|model's) .{0,20}tokens",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|not (supported|permitted|allowed|recognized|available)"
    r"|does(n't| not) support|extra inputs|additional propert",
    re.IGNORECASE,
)
_VALUE = re.compile(r"\bvalue\b|must be|invalid_value|unsupported_value|only .{0,40}default", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_QUOTED = re.compile(r"['\"`]([A-Za-z_][A-Za-z0-9_]{0,63})")


class Reply(NamedTuple):
    """A whole answer: status 200, or an error object that says what is wrong with the request.

    `fault` says whose doing that is: the prompt is too long for this model, this upstream has no such model or
    endpoint, or the client's, as far as this upstream knows (`refusal_in` knows more).
    """

    status: int
    body: dict[str, object]
    fault: Fault | None = None


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
    body = read_object(content)
    if body is not None and upstream.key:  # as one writer escapes both: the upstream may have escaped it otherwise
        body = read_object(dumps(body).replace(dumps(upstream.key)[1:-1], b"***"))
    if body is None or not isinstance(body.get("error"), dict):
        message = said_in(body, upstream) or redact(content.decode(errors="replace"), upstream)
        error = {"message": message or f"the upstream said {status}", "type": "invalid_request_error"}
        body = {"error": {**error, "param": None, "code": None}}
    error = body["error"] if isinstance(body["error"], dict) else {}
    said = f"{error.get('code')} {error.get('message')}"
    if is_too_long(said) or status == 413:
        return Reply(status, body, "context")
    return Reply(status, body, "absent" if status in (404, 405) else "client")


def is_too_long(said: str) -> bool:
    """Whether an error says that the prompt does not fit the model's context."""
    return _TOO_LONG.search(said) is not None


def too_long(failure: UpstreamError) -> Reply:
    """What a failure that says so is to the client, where nobody's context is larger."""
    error = {"message": str(failure), "type": "invalid_request_error", "param": None, "code": CONTEXT_EXCEEDED}
    return Reply(400, {"error": error}, "context")


def refusal_in(reply: Reply, sent: Mapping[str, object]) -> Refusal | None:
    """The parameter of the body sent that a refusal names, in `param` or in quotes; none where it names none."""
    error = reply.body.get("error")
    if reply.fault != "client" or not isinstance(error, dict):
        return None
    said = f"{error.get('code')} {error.get('message')}"
    unknown = _UNKNOWN.search(said) is not None
    param = error.get("param")
    named = [re.split(r"[.\[]", param, maxsplit=1)[0]] if isinstance(param, str) else []
    if unknown:
        named += _QUOTED.findall(said)
        named += [word for word in _WORD.findall(said) if "_" in word or len(word) >= LEAST_BARE_WORD]
    name = next((name for name in named if name in sent and name not in FIXED), None)
    return None if name is None else Refusal(name, any_value=unknown and not _VALUE.search(said))


def said_in(body: Mapping[str, object] | None, upstream: Upstream) -> str:
    """What an error object says, without the upstream's key."""
    error = (body or {}).get("error") or (body or {}).get("detail") or (body or {}).get("message")
    message = error.get("message") if isinstance(error, dict) else error
    return redact(str(message), upstream) if message else ""


def redact(text: str, upstream: Upstream) -> str:
    """Take an upstream's key out of a text, and the query of its URL, which may be one; and cut it short."""
    for secret in (upstream.key, upstream.base_url.partition("?")[2]):
        if secret:
            text = text.replace(secret, "***")
    return text[:MAX_MESSAGE_CHARS]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The wait that a response asks for: `retry-after-ms`, else Retry-After in seconds or as a date (RFC 9110).

    At most MAX_WAIT_S; none where it names no time.
    """
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait_s = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue
        return min(wait_s, MAX_WAIT_S) if wait_s >= 0 else None
    try:
        due = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    due = due if due.tzinfo else due.replace(tzinfo=UTC)
    wait_s = (due - datetime.now(UTC)).total_seconds()
    return min(max(wait_s, 0.0), MAX_WAIT_S)
