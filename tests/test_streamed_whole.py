"""An answer that came whole to who asked for a stream, as the chunks that it would have come in."""

import pytest

from router.chunks import Chunk, as_chunks

ENVELOPE: Chunk = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "vendor": [1]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_each_choice_comes_at_once_then_its_end_then_the_usage() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"}
    choices = [{"index": n, "message": message, "finish_reason": "tool_calls", "logprobs": None} for n in range(2)]
    *chunks, last = as_chunks({**ENVELOPE, "choices": choices, "usage": {"total_tokens": 3}})
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert all((chunk["id"], chunk["vendor"]) == ("chatcmpl-1", [1]) for chunk in chunks)
    said = [choice for chunk in chunks for choice in chunk["choices"]]  # type: ignore[attr-defined]
    assert [(choice["index"], choice["finish_reason"]) for choice in said] == [
        (0, None),
        (0, "tool_calls"),
        (1, None),
        (1, "tool_calls"),
    ]
    assert said[0]["delta"] == {**message, "tool_calls": [{"index": 0, **CALL}]}
    assert (last["choices"], last["usage"]) == ([], {"total_tokens": 3})


def test_a_bare_completion_keeps_its_text() -> None:
    chunks = as_chunks({"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": "four"}]})
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "text": "four", "finish_reason": None}],
        [{"index": 0, "text": "", "finish_reason": "stop"}],
    ]


@pytest.mark.parametrize("choices", [None, [], ["x"], [None], [{"message": "x"}], [{"message": {"tool_calls": ["x"]}}]])
def test_what_is_odd_does_no_harm(choices: object) -> None:
    assert all(isinstance(chunk, dict) for chunk in as_chunks({"choices": choices}))
