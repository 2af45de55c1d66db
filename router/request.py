"""A request as a value: read once from its bytes, forwarded as it came.

Only what routing needs is looked at (`model`, `stream`, what was said, the output limit and our own extension); every
other field, known or not, goes to the upstream unchanged. It knows nothing of models or policies in force.
"""

import json
from collections.abc import Mapping, Sequence
from math import isinf
from typing import NamedTuple

from data import fast_json
from router.endpoints import CHAT, Endpoint
from router.errors import InvalidRequestError, shown
from router.needs import Capability, needs
from router.overrides import EXTENSION, Overrides, read_overrides
from router.policy import Policy
from router.prompt import asked
from router.turns import BYTES_PER_TOKEN, Turn, read_turns

TOO_DEEP = "the body is nested too deeply to read"
MOST_TOKENS = 2**31 - 1  # a limit above it is none; its digits could be more than a message may hold
READ_TOO = ("tools", "functions", "response_format", "text")  # by the model, beside what was said
OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
# what only the upstream that answered before could know; the next request may be answered by another
STATEFUL = ("previous_response_id", "conversation", "background")


class PromptRequest(NamedTuple):
    """A request that some model could answer. `body` is as received, less our extension; `text` is what is encoded."""

    endpoint: Endpoint
    body: dict[str, object]
    model: str
    stream: bool
    text: str
    input_tokens: int
    max_output_tokens: int | None
    needs: frozenset[Capability]
    overrides: Overrides

    @property
    def policy(self) -> Policy:
        return self.overrides.policy

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for a stream's usage."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True


def read_request(
    content: bytes, headers: Mapping[str, str], default: Policy, endpoint: Endpoint = CHAT
) -> PromptRequest:
    """Read a request; InvalidRequestError names the part that is wrong."""
    body = _object(content)
    extension = body.pop(EXTENSION, None)
    model, stream = body.get("model"), body.get("stream")
    if not isinstance(model, str) or not model:
        hint = ", or `auto` to be routed" if endpoint.routed else ""
        raise InvalidRequestError(f"`model` must be a model's name{hint}", param="model")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequestError(f"`stream` must be true or false, not {shown(stream)}", param="stream")
    if endpoint.typed:
        _refuse_state(body)
    turns = read_turns(body, endpoint)
    return PromptRequest(
        endpoint=endpoint,
        body=body,
        model=model,
        stream=bool(stream),
        text=asked(turns),
        input_tokens=_tokens(turns, body),
        max_output_tokens=_output_limit(body),
        needs=needs(body, turns),
        overrides=read_overrides(extension, headers, default),
    )


def _object(content: bytes) -> dict[str, object]:
    try:
        return _dict(fast_json.loads(content))
    except ValueError:
        pass  # it may still be JSON; if not, this says better what is wrong
    try:
        body = _DECODER.decode(content.decode(json.detect_encoding(content), "surrogatepass"))
    except RecursionError:
        raise InvalidRequestError(TOO_DEEP) from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise InvalidRequestError(f"the body is not JSON: {error}") from None
    if fast_json.is_too_deep(content, body):
        raise InvalidRequestError(TOO_DEEP)
    return _dict(body)


def _dict(body: object) -> dict[str, object]:
    if not isinstance(body, dict):
        raise InvalidRequestError(f"the body must be a JSON object, not {shown(body)}")
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    """A number that can be sent on: 1e400 would become an infinity, which JSON has no word for."""
    number = float(digits)
    if isinf(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)  # made anew, it costs a body's worth


def _refuse_state(body: Mapping[str, object]) -> None:
    for param in STATEFUL:
        if body.get(param):
            message = f"`{param}` needs a state that this router does not keep: send the whole conversation in `input`"
            raise InvalidRequestError(message, param=param, code="unsupported_parameter")
    items = body.get("input")
    for place, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict) and item.get("type") == "item_reference":
            message = "an item that is referred to is known to one upstream alone: send the item itself"
            raise InvalidRequestError(message, param=f"input.{place}", code="unsupported_parameter")


def _tokens(turns: Sequence[Turn], body: Mapping[str, object]) -> int:
    """About how many tokens go in: texts, calls, the tools' definitions and the form asked for, one for four bytes."""
    n_bytes = sum(len(json.dumps(body[name])) for name in READ_TOO if body.get(name))
    for turn in turns:
        n_bytes += turn.n_unread
        for text in turn.texts:
            n_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-n_bytes // BYTES_PER_TOKEN)


def _output_limit(body: Mapping[str, object]) -> int | None:
    limits = (body.get(name) for name in OUTPUT_LIMITS)
    counts = (min(n, MOST_TOKENS) for n in limits if isinstance(n, int) and not isinstance(n, bool) and n > 0)
    return next(counts, None)
