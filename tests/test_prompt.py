"""What of a conversation is encoded."""

import time
from typing import Any

import pytest

from router.endpoints import CHAT, COMPLETIONS, RESPONSES
from router.errors import InvalidRequestError
from router.prompt import INJECTED, MAX_CHARS, asked, is_follow_up, without_injected
from router.turns import read_turns

ASK = "How do I sort a list of dictionaries by two of their keys?"


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def text_of(*messages: dict[str, object]) -> str:
    return asked(read_turns({"messages": list(messages)}, CHAT))


@pytest.mark.parametrize(
    "messages",
    [
        [user(ASK)],
        [{"role": "system", "content": "You are kind."}, {"role": "developer", "content": "Be brief."}, user(ASK)],
        [user("Tell me a long story about a dragon and a knight."), {"role": "assistant", "content": "No."}, user(ASK)],
        [
            user(ASK),
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
            {"role": "tool", "tool_call_id": "1", "content": "a file of 1,000 lines"},
            {"role": "assistant", "content": "Let me look at it again."},
        ],
        [user([{"type": "text", "text": ASK}, {"type": "image_url", "image_url": {"url": "data:"}}])],
        [user(f"<system-reminder>Your todo list is empty.</system-reminder>\n{ASK}")],
        [user(ASK), user("<system-reminder>\nNothing changed.\n</system-reminder>")],
        [user(f"<System-Reminder\n priority='1'>\n<system-reminder>x</system-reminder>y</SYSTEM-REMINDER>{ASK}")],
        [user(f'<ide_selection file="List<String>.java">secret code</ide_selection>{ASK}')],
        [user(f"see:\n<tool_result>the file says <tool_result> here</tool_result>{ASK}".removeprefix("see:\n"))],
        [user(f"<ide_diagnostics>[<system-reminder>]</ide_diagnostics>{ASK}<user_info></user_info>")],
        [user(f"<environment_context>\n<cwd>/src</cwd>\n</environment_context>{ASK}<ide_selection>x</ide_selection>")],
    ],
)
def test_it_is_the_last_human_ask_alone(messages: list[dict[str, object]]) -> None:
    assert text_of(*messages) == ASK


def test_a_short_follow_up_stands_behind_the_ask_before_it() -> None:
    answer: dict[str, object] = {"role": "assistant", "content": "sorted(rows, key=...)"}
    assert text_of(user(ASK), answer, user("fix it")) == f"{ASK}\nfix it"
    assert text_of(user(ASK), answer, user("fix it"), answer, user("now in Rust")) == f"{ASK}\nfix it\nnow in Rust"
    assert text_of(user("fix it")) == "fix it"


@pytest.mark.parametrize(
    ("text", "expected"), [("fix it", True), (ASK, False), ("用中文解释一下这个算法的复杂度好吗", False)]
)
def test_a_follow_up_is_short_in_any_script(text: str, expected: bool) -> None:
    assert is_follow_up(text) is expected


def test_without_a_human_ask_there_is_nothing() -> None:
    assert text_of({"role": "system", "content": "be kind"}) == ""
    assert text_of(user("   "), user([{"type": "image_url", "image_url": {"url": "x"}}])) == ""


def test_of_a_long_ask_head_and_tail_are_kept() -> None:
    text = text_of(user("head " + "x" * 100_000 + " tail?"))
    assert text.startswith("head ")
    assert text.endswith(" tail?")
    assert len(text) <= MAX_CHARS + 1


@pytest.mark.parametrize("form", ["{0}{1}{2}", "{1}{0}{2}", "{0}{2}{1}"])
def test_large_blocks_are_taken_out_wherever_the_ask_stands(form: str) -> None:
    blocks = [f"<{name}>{'filler ' * 30_000}</{name}>" for name in ("attached_files", "environment_details")]
    assert text_of(user(form.format(blocks[0], ASK, blocks[1]))) == ASK


def test_a_block_of_megabytes_is_taken_out() -> None:
    assert text_of(user(f"<tool_result>{'x' * 3_000_000}</tool_result>{ASK}")) == ASK


def test_a_block_without_an_end_and_a_longer_name_are_the_humans_own() -> None:
    for text in ("<system-reminder>what is this?</b>", "<user_information>is</user_information> a tag</b>"):
        assert without_injected(text) == text
    assert without_injected("is <user_info> a tag?<user_info>x</user_info>!") == "is <user_info> a tag?!"


def test_a_hostile_text_is_searched_once() -> None:
    started = time.process_time()
    for name in INJECTED:
        without_injected(f"<{name}x" * 20_000 + f"</{name}>")
        without_injected(f"<{name}>" * 20_000 + "</b>")
        without_injected(f"<{name}>\n" * 20_000 + f"</{name}>")
        without_injected(f'<{name} "' * 20_001 + f"</{name}>")
        without_injected(f"<{name} " * 20_000 + f"<{name}></{name}>" * 10_000)
    assert time.process_time() - started < 10  # quadratic, it would take hours


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"input": ASK}, ASK),
        ({"instructions": "be kind", "input": [{"role": "user", "content": ASK}]}, ASK),
        (
            {
                "input": [
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ASK}]},
                    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "1", "output": "42"},
                ]
            },
            ASK,
        ),
    ],
)
def test_the_input_of_a_response_is_read_like_messages(body: dict[str, Any], text: str) -> None:
    assert asked(read_turns(body, RESPONSES)) == text


def test_a_bare_prompt_is_one_text_or_several_and_tokens_have_none() -> None:
    assert asked(read_turns({"prompt": ASK}, COMPLETIONS)) == ASK
    assert asked(read_turns({"prompt": [ASK, ASK]}, COMPLETIONS)) == f"{ASK}\n{ASK}"
    assert asked(read_turns({"prompt": [1, 2, 3]}, COMPLETIONS)) == ""


def test_what_the_upstream_knows_the_prompt_of_has_no_text() -> None:
    assert asked(read_turns({"prompt": None}, COMPLETIONS)) == ""
    assert asked(read_turns({"prompt": {"id": "pmpt_1"}}, RESPONSES)) == ""
    with pytest.raises(InvalidRequestError, match="`input` must be a list of at least one message"):
        read_turns({"prompt": "pmpt_1"}, RESPONSES)
