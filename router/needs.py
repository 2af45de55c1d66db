"""What a request needs of a model besides words: tools, images, several answers.

A model that says what it can do is asked only for that; one that says nothing may be asked for anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from router.turns import TOOL, TOOL_CALLS, Turn

Capability = Literal["tools", "json_schema", "vision", "audio", "file", "n", "logprobs"]

WORDS: dict[Capability, str] = {
    "tools": "tools",
    "json_schema": "answers that follow a JSON schema",
    "vision": "images",
    "audio": "audio",
    "file": "files",
    "n": "several answers at once (n)",
    "logprobs": "log probabilities",
}
PART_NEEDS: dict[str, Capability] = {
    TOOL_CALLS: "tools",
    "image_url": "vision",
    "input_image": "vision",
    "input_audio": "audio",
    "file": "file",
    "input_file": "file",
}


def needs(body: Mapping[str, object], turns: Sequence[Turn]) -> frozenset[Capability]:
    """What a body's parameters and turns need."""
    found: set[Capability] = set()
    for turn in turns:
        found.update(PART_NEEDS[part] for part in turn.parts if part in PART_NEEDS)
        if turn.role in (TOOL, "function"):
            found.add("tools")
    found.update(_parameters(body))
    return frozenset(found)


def _parameters(body: Mapping[str, object]) -> Iterator[Capability]:
    if body.get("tools") or body.get("functions"):
        yield "tools"
    text = body.get("text")
    for wanted in (body.get("response_format"), text.get("format") if isinstance(text, dict) else None):
        if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
            yield "json_schema"
    modalities = body.get("modalities")
    if body.get("audio") or (isinstance(modalities, list) and "audio" in modalities):
        yield "audio"
    if any(isinstance(count := body.get(name), int) and count > 1 for name in ("n", "best_of")):
        yield "n"
    included = body.get("include")
    wants_logprobs = isinstance(included, list) and "message.output_text.logprobs" in included
    if wants_logprobs or body.get("logprobs") not in (None, False) or body.get("top_logprobs") not in (None, 0):
        yield "logprobs"
