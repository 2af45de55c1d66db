"""A chat request as a value: read once from its bytes, forwarded as it came.

Only what routing needs is looked at (`model`, `stream`, `messages`, the output limit and our own extension); every
other field, known or not, goes to the upstream unchanged. It knows nothing of models or policies in force.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import isinf
from typing import cast

from router.errors import InvalidRequestError
from router.policy import POLICY_NAMES, Policy, PolicyName

EXTENSION = "embedrouter"
HEADER_OF = {
    "policy": "x-embedrouter-policy",
    "min_p_correct": "x-embedrouter-min-p-correct",
    "lambda": "x-embedrouter-lambda",
}
EXTENSION_KEYS = (*HEADER_OF, "candidates")
CHARS_PER_TOKEN = 4  # an estimate that needs no tokenizer: English text, and good enough to compare prices


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat completion request. `body` is as received, less our extension; `text` is what gets encoded."""

    body: dict[str, object]
    model: str
    stream: bool
    text: str
    input_tokens: int
    max_output_tokens: int | None
    policy: Policy
    candidates: tuple[str, ...] | None = None

    def body_for(self, upstream_model: str) -> bytes:
        """The bytes to send: the same body, under the upstream's name for the model."""
        return json.dumps({**self.body, "model": upstream_model}, separators=(",", ":")).encode()


def read_chat_request(content: bytes, headers: Mapping[str, str], default: Policy) -> ChatRequest:
    """Read a request; InvalidRequestError names the part that is wrong."""
    body = _object(content)
    extension = body.pop(EXTENSION, None)
    model, stream = body.get("model"), body.get("stream")
    if not isinstance(model, str) or not model:
        raise InvalidRequestError("`model` must be a model's name, or `auto` to be routed", param="model")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequestError(f"`stream` must be true or false, not {_shown(stream)}", param="stream")
    messages = _messages(body)
    policy, candidates = _overrides(extension, headers, default)
    return ChatRequest(
        body=body,
        model=model,
        stream=bool(stream),
        text=last_user_text(messages),
        input_tokens=-(-sum(len(text) for message in messages for text in _texts(message)) // CHARS_PER_TOKEN),
        max_output_tokens=_output_limit(body),
        policy=policy,
        candidates=candidates,
    )


def last_user_text(messages: list[dict[str, object]]) -> str:
    """The text of the last message that a user wrote; empty where there is none."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return "\n".join(_texts(message))
    return ""


def _object(content: bytes) -> dict[str, object]:
    try:
        body = json.loads(content, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise InvalidRequestError("the body is nested too deeply to read") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise InvalidRequestError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise InvalidRequestError(f"the body must be a JSON object, not {_shown(body)}")
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    """A number that can be sent on: 1e400 would become an infinity, which JSON has no word for."""
    number = float(digits)
    if isinf(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def _messages(body: dict[str, object]) -> list[dict[str, object]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequestError("`messages` must be a list of at least one message", param="messages")
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            where = f"messages.{position}"
            raise InvalidRequestError(f"`{where}` must be an object with a `role`, not {_shown(message)}", param=where)
    return cast(list[dict[str, object]], messages)


def _texts(message: Mapping[str, object]) -> Iterator[str]:
    """The texts of a message's content, which is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
                yield part["text"]


def _output_limit(body: Mapping[str, object]) -> int | None:
    limits = (body.get(name) for name in ("max_completion_tokens", "max_tokens"))
    return next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)


def _overrides(extension: object, headers: Mapping[str, str], default: Policy) -> tuple[Policy, tuple[str, ...] | None]:
    """What this request says of its own policy: our object in the body, else our headers, else the configuration."""
    if extension is None:
        extension = {}
    if not isinstance(extension, dict):
        raise InvalidRequestError(f"`{EXTENSION}` must be an object, not {_shown(extension)}", param=EXTENSION)
    for key in extension:
        if key not in EXTENSION_KEYS:
            near = difflib.get_close_matches(str(key), EXTENSION_KEYS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(EXTENSION_KEYS)}"
            raise InvalidRequestError(f"unknown key `{key}` in `{EXTENSION}`; {hint}", param=f"{EXTENSION}.{key}")
    given: dict[str, tuple[str, object]] = {}
    for key, header in HEADER_OF.items():
        if (value := headers.get(header)) is not None:
            given[key] = header, value
        if extension.get(key) is not None:
            given[key] = f"{EXTENSION}.{key}", extension[key]
    policy = default
    if "policy" in given:
        policy = replace(policy, name=_policy_name(*given["policy"]))
    if "min_p_correct" in given:
        policy = replace(policy, min_p_correct=_number(*given["min_p_correct"], most=1.0))
    if "lambda" in given:
        policy = replace(policy, usd_weight=_number(*given["lambda"]))
    return policy, _candidates(extension.get("candidates"))


def _policy_name(param: str, value: object) -> PolicyName:
    for name in POLICY_NAMES:
        if value == name:
            return name
    raise InvalidRequestError(f"`{param}` is {_shown(value)}; it must be one of {', '.join(POLICY_NAMES)}", param=param)


def _number(param: str, value: object, most: float = 1e12) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        number = -1.0
    if not 0 <= number <= most:
        limit = f"between 0 and {most:g}" if most == 1 else "of 0 or more"
        raise InvalidRequestError(f"`{param}` is {_shown(value)}; it must be a number {limit}", param=param)
    return number


def _candidates(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        param = f"{EXTENSION}.candidates"
        raise InvalidRequestError(f"`{param}` must be a list of model names, not {_shown(value)}", param=param)
    return tuple(value)


def _shown(value: object) -> str:
    """A value as JSON writes it, cut short."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
