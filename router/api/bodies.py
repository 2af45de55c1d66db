"""What the endpoints take, for the OpenAPI document only: `router.request` reads bodies and keeps unknown fields."""

from typing import Any


def _or_null(**schema: Any) -> dict[str, Any]:
    """What may be null too, as if it were not there."""
    return {"anyOf": [schema, {"type": "null"}]}


_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_NOT_NEGATIVE = {"type": "number", "minimum": 0}
_WORTH = {"type": "number", "exclusiveMinimum": 0}
_NAMES = {"type": "array", "minItems": 1, "items": {"type": "string"}}
OVERRIDES = _or_null(
    type="object",
    description="how this request wants to be routed; each key is also a header, as x-embedrouter-max-cost-usd",
    additionalProperties=False,
    properties={
        "policy": _or_null(enum=["quality", "balanced", "cheapest", "fixed"]),
        "min_p_correct": _or_null(**_SHARE),
        "max_error": _or_null(**_SHARE, description="share of wrong answers"),
        "lambda": _or_null(**_NOT_NEGATIVE, description="P(correct) that one USD of cost outweighs"),
        "usd_per_correct": _or_null(**_WORTH, description="1 / lambda"),
        "candidates": _or_null(**_NAMES),
        "max_cost_usd": _or_null(**_NOT_NEGATIVE),
        "max_latency_s": _or_null(**_NOT_NEGATIVE),
    },
)
_TEXTS = {"type": "string"}, {"type": "array", "minItems": 1}  # a list of texts, of tokens, of lists of them


def body(model: str, *required: str, either: tuple[str, str] | None = None, **properties: Any) -> dict[str, Any]:
    """An operation's request body: a model, what is asked, and whatever else the upstream takes.

    Of the two in `either`, one at least must be there.
    """
    schema = {
        "type": "object",
        "required": ["model", *required],
        "additionalProperties": True,
        "properties": {"model": {"type": "string", "minLength": 1, "description": model}, **properties},
        **({"anyOf": [{"required": [name]} for name in either]} if either else {}),
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


ROUTED = "`auto`, or a model of the pool"
STREAM = _or_null(type="boolean")
CHAT_BODY = body(
    ROUTED,
    "messages",
    messages={
        "type": "array",
        "minItems": 1,
        "items": {"type": "object", "required": ["role"], "properties": {"role": {"type": "string"}}},
    },
    stream=STREAM,
    embedrouter=OVERRIDES,
)
COMPLETIONS_BODY = body(
    ROUTED, "prompt", prompt={"anyOf": [*_TEXTS, {"type": "null"}]}, stream=STREAM, embedrouter=OVERRIDES
)
RESPONSES_BODY = body(
    ROUTED,
    either=("input", "prompt"),
    input={"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "object"}}]},
    prompt={"type": "object", "description": "one that the upstream keeps"},
    stream=STREAM,
    embedrouter=OVERRIDES,
)
EMBEDDINGS_BODY = body("a model of the pool", "input", input={"anyOf": list(_TEXTS)})
