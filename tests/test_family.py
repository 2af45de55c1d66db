"""Names of real models and the families that they belong to."""

import pytest

from training.family import family_of


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("claude-3", ["claude-3-5-sonnet-20240620", "claude-3-opus-20240229"]),
        ("gpt-4", ["gpt-4o-2024-08-06", "gpt-4-0314"]),
        ("llama-3.1", ["Meta-Llama-3.1-70B-Instruct", "Llama-3.1-405B-Inst-fp8@together", "meta-llama/Llama-3.1-8B"]),
        ("qwen2.5", ["Qwen2.5-72B-Instruct", "Qwen/Qwen2.5-32B-Instruct"]),
        ("command", ["command-r", "command-r-plus"]),
        ("my", ["my-model"]),
        ("42", ["42"]),
    ],
)
def test_a_family_is_the_first_word_and_its_number(family: str, names: list[str]) -> None:
    assert {family_of(name) for name in names} == {family}
