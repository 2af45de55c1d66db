"""What is read out of a request: how much of it a model has to read, and what it takes to."""

import json
from typing import Any

import pytest

from router.endpoints import CHAT, COMPLETIONS, RESPONSES, Endpoint
from router.needs import Capability
from router.policy import Policy
from router.request import PromptRequest, read_request

ASK = {"role": "user", "content": "x" * 40}
LONG = json.dumps({"code": "y" * 4000})
SCHEMA = {"type": "json_schema", "json_schema": {"name": "z" * 4000, "schema": {}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "run", "arguments": LONG}}


def read(endpoint: Endpoint, **body: Any) -> PromptRequest:
    return read_request(json.dumps({"model": "auto", **body}).encode(), {}, Policy(), endpoint)


@pytest.mark.parametrize(
    ("endpoint", "body", "n_tokens"),
    [
        (CHAT, {"messages": [ASK]}, 10),
        (CHAT, {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}, ASK]}, 1020),
        (CHAT, {"messages": [ASK], "tools": [CALL]}, 1010),
        (CHAT, {"messages": [ASK], "response_format": SCHEMA}, 1010),
        (COMPLETIONS, {"prompt": list(range(500))}, 500),
        (COMPLETIONS, {"prompt": [[1] * 300, [2] * 200]}, 500),
        (RESPONSES, {"input": [ASK, {"type": "function_call", "arguments": LONG}, ASK]}, 1020),
        (RESPONSES, {"input": "x" * 40, "text": {"format": SCHEMA}}, 1010),
    ],
)
def test_whatever_a_model_has_to_read_is_counted(endpoint: Endpoint, body: dict[str, Any], n_tokens: int) -> None:
    assert n_tokens <= read(endpoint, **body).input_tokens <= 1.1 * n_tokens


@pytest.mark.parametrize(
    ("body", "needed"),
    [
        ({"input": "x"}, set()),
        ({"input": "x", "include": ["message.output_text.logprobs"]}, {"logprobs"}),
        ({"input": [{"type": "function_call_output", "output": [{"type": "input_image"}]}]}, {"tools", "vision"}),
        ({"input": [{"type": "function_call_output", "output": [{"type": "input_text", "text": "x"}]}]}, {"tools"}),
    ],
)
def test_what_a_responses_request_needs(body: dict[str, Any], needed: set[Capability]) -> None:
    assert read(RESPONSES, **body).needs == needed
