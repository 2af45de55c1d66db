"""What the endpoints take, for the OpenAPI document only: `router.request` reads bodies and keeps unknown fields."""

from typing import Any

OVERRIDES: dict[str, Any] = {
    "type": "object",
    "description": "how this request wants to be routed; each key is also a header, as x-embedrouter-max-cost-usd",
    "additionalProperties": False,
    "properties": {
        "policy": {"enum": ["quality", "balanced", "cheapest", "fixed"]},
        "min_p_correct": {"type": "number", "minimum": 0, "maximum": 1},
        "max_error": {"type": "number", "minimum": 0, "maximum": 1, "description": "share of wrong answers"},
        "lambda": {"type": "number", "minimum": 0, "description": "P(correct) that one USD of cost outweighs"},
        "usd_per_correct": {"type": "number", "exclusiveMinimum": 0, "description": "1 / lambda"},
        "candidates": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "max_cost_usd": {"type": "number", "minimum": 0},
        "max_latency_s": {"type": "number", "minimum": 0},
    },
}
PROMPT: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": ["string", "integer", "array"]}}]
}


def body(model: str, *required: str, **properties: Any) -> dict[str, Any]:
    """An operation's request body: a model, what is asked, and whatever else the upstream takes."""
    schema = {
        "type": "object",
        "required": ["model", *required],
        "additionalProperties": True,
        "properties": {"model": {"type": "string", "minLength": 1, "description": model}, **properties},
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


ROUTED = "`auto`, or a model of the pool"
STREAM = {"type": "boolean"}
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
COMPLETIONS_BODY = body(ROUTED, "prompt", prompt=PROMPT, stream=STREAM, embedrouter=OVERRIDES)
RESPONSES_BODY = body(
    ROUTED,
    "input",
    input={"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "object"}}]},
    stream=STREAM,
    embedrouter=OVERRIDES,
)
EMBEDDINGS_BODY = body("a model of the pool", "input", input=PROMPT)
