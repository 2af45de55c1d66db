"""Read a conversation out of a request's body, whatever its endpoint calls things.

Only what routing needs is read: who spoke, what was said in text, and what else a turn holds. The body itself stays
as it came. A complaint names the part of the body that is wrong.
"""

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

from router.endpoints import CHAT, COMPLETIONS, Endpoint
from router.errors import InvalidRequestError, shown

USER, SYSTEM, TOOL = "user", "system", "tool"
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
TOOL_CALLS = "tool_calls"
WORD_KEYS = ("role", "type")
BYTES_PER_TOKEN = 4  # an estimate that needs no tokenizer, and good enough to compare prices


class Turn(NamedTuple):
    """One turn. `parts` are the types of what it holds besides text, such as image_url or tool_calls.

    `n_unread` is how many bytes go in that are no text to read: a call's arguments, or tokens at BYTES_PER_TOKEN each.
    """

    role: str
    texts: tuple[str, ...]
    parts: frozenset[str] = frozenset()
    n_unread: int = 0

    @property
    def text(self) -> str:
        return self.texts[0] if len(self.texts) == 1 else "\n".join(self.texts)


def read_turns(body: Mapping[str, object], endpoint: Endpoint) -> list[Turn]:
    """Read the turns of a body, oldest first; InvalidRequestError where there are none, and should be."""
    if endpoint is CHAT:
        return [_message(message) for message in _messages(body, "messages")]
    if endpoint is COMPLETIONS:
        return [Turn(USER, ())] if body.get("prompt", "") is None else [_prompt(body, "prompt")]
    if not endpoint.typed:
        return [_prompt(body, "input")]
    instructions = body.get("instructions")
    system = [Turn(SYSTEM, (instructions,))] if isinstance(instructions, str) else []
    if isinstance(body.get("input"), str):
        return [*system, _prompt(body, "input")]
    if body.get("input") is None and isinstance(body.get("prompt"), dict):  # one that the upstream keeps
        return system
    return [*system, *(_item(item) for item in _objects(body, "input"))]


def words_of(items: object) -> Iterator[str]:
    """The roles of the turns of a body, and the types of them and of their parts.

    A model may know some of these and not others, as the role `developer`.
    """
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict):
            continue
        content = item.get("content")
        for each in (item, *(content if isinstance(content, list) else ())):
            if isinstance(each, dict):
                yield from (word for key in WORD_KEYS if isinstance(word := each.get(key), str))


def _objects(body: Mapping[str, object], param: str) -> list[dict[str, object]]:
    found = body.get(param)
    if not isinstance(found, list) or not found:
        raise InvalidRequestError(f"`{param}` must be a list of at least one message", param=param)
    for position, item in enumerate(found):
        if not isinstance(item, dict):
            where = f"{param}.{position}"
            raise InvalidRequestError(f"`{where}` must be an object, not {shown(item)}", param=where)
    return cast(list[dict[str, object]], found)


def _messages(body: Mapping[str, object], param: str) -> list[dict[str, object]]:
    messages = _objects(body, param)
    for position, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            where = f"{param}.{position}"
            raise InvalidRequestError(f"`{where}` must be an object with a `role`, not {shown(message)}", param=where)
    return messages


def _message(message: Mapping[str, object]) -> Turn:
    content = message.get("content")
    calls = message.get("tool_calls") or message.get("function_call")
    parts = {TOOL_CALLS} if calls else set()
    parts |= set(_kinds(content)) if isinstance(content, list) else set()
    n_unread = len(json.dumps(calls)) if calls else 0
    return Turn(cast(str, message["role"]), tuple(_texts(content)), frozenset(parts), n_unread)


def _item(item: Mapping[str, object]) -> Turn:
    """An item of a Responses input: a message, or a tool's call, its output, a trace of reasoning."""
    kind = item.get("type", "message")
    if kind != "message":
        output, arguments = item.get("output"), item.get("arguments")
        kinds = _kinds(output) if isinstance(output, list) else ()
        n_unread = len(arguments) if isinstance(arguments, str) else 0
        return Turn(TOOL, tuple(_texts(output)), frozenset({TOOL_CALLS, *kinds}), n_unread)
    role = item.get("role")
    return _message({**item, "role": role if isinstance(role, str) else SYSTEM})


def _prompt(body: Mapping[str, object], param: str) -> Turn:
    """A bare prompt: a text, several, or tokens, which have no text that we could read."""
    prompt = body.get(param)
    if isinstance(prompt, str):
        return Turn(USER, (prompt,))
    if not isinstance(prompt, list) or not prompt:
        raise InvalidRequestError(f"`{param}` must be a text, or a list of at least one", param=param)
    n_tokens = sum(len(each) if isinstance(each, list) else isinstance(each, int) for each in prompt)
    return Turn(USER, tuple(text for text in prompt if isinstance(text, str)), n_unread=BYTES_PER_TOKEN * n_tokens)


def _texts(content: object) -> Iterator[str]:
    """The texts of a content, which is a string or a list of parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if not isinstance(part, dict) or not isinstance(text := part.get("text"), str):
                continue
            if isinstance(kind := part.get("type"), str) and kind in TEXT_PARTS:
                yield text


def _kinds(content: list[object]) -> Iterator[str]:
    for part in content:
        if isinstance(part, dict) and isinstance(kind := part.get("type"), str) and kind not in TEXT_PARTS:
            yield kind
