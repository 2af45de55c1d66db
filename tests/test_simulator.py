"""The simulator: its LLMs' answers and errors, and the wire it speaks to the official client."""

import openai
import pytest

from data.demo.generate import generate
from data.demo.question import final_answer, is_correct
from router.errors import ConfigError
from router.simulated.mind import answer, slip_probability
from router.simulated.pool import BY_NAME, POOL
from router.simulated.reading import STYLES
from router.simulated.skills import read
from router.simulator import SIMULATED_MODELS, run_simulator


@pytest.mark.parametrize(
    ("prompt", "right", "careless", "shortcut", "confused"),
    [
        ("What is 47 + 85?", "132", "22", "130", "142"),  # no carries; to tens; a carry too many
        ("What is 3 + 4 * 5?", "23", "3", "35", "37"),
        ("Convert 10 miles to kilometres, to two decimals.", "16.09", "6.21", "16.00", "18.52"),
        ("How many days are there from 2020-02-01 to 2020-03-01?", "29", "30", "28", "30"),
        ('Reverse the letters of "red fox".', "xof der", "xofder", "fox red", "der xof"),
        ('How many times does the letter "t" occur in "button kettle"?', "4", "1", "2", "6"),
        ("Ada is taller than Ben. Zoe is shorter than Ben. Who is the tallest?", "Ada", "Zoe", "Ada", "Ada"),
        ("Given that P is true, Q is false, evaluate not P or (Q and P).", "False", "True", "False", "False"),
        ("What comes next: 1, 4, 9, 16, 25, ...?", "36", "49", "34", "41"),
        ("Read the Roman numeral XIV as an ordinary number.", "14", "9", "16", "59"),
        (
            "A lamp costs $100 in the shop. The price rises by 10%. It then falls by 20%. Give the amount to the cent.",
            "88.00", "110.00", "90.00", "132.00",
        ),
        (
            "What does this Python program print?\n\ntotal = 0\nfor i in range(1, 6):\n    total += i\nprint(total)",
            "15", "21", "6", "10",
        ),
        (
            'How many items have colour "red"? [{"name": "a", "colour": "red"}, {"name": "b", "colour": "red"}, '
            '{"name": "c", "colour": "blue"}]',
            "2", "1", "1", "1",
        ),
    ],
)  # fmt: skip
def test_each_family_is_solved_and_missed_by_its_own_methods(
    prompt: str, right: str, careless: str, shortcut: str, confused: str
) -> None:
    reading = read(prompt)
    assert reading is not None
    assert reading.right.answer == right
    assert [reading.slips[style].answer for style in STYLES] == [careless, shortcut, confused]


def test_other_prompts_are_not_understood() -> None:
    for prompt in ("", "Hello!", "Who wrote Faust?", "Sum up this mail: call 555-1234 on 2024-02-30", "[]", "x = 3"):
        assert read(prompt) is None, prompt


def test_harder_questions_are_slipped_on_more_often_and_less_by_the_skilled() -> None:
    easy, hard = read("What is 4 + 5?"), read("What is 48213 * 7123 - 90132 * 887?")
    assert easy is not None
    assert hard is not None
    nano, abacus = BY_NAME["sim-pocket-nano"], BY_NAME["sim-abacus-math"]
    assert slip_probability(nano, easy) < slip_probability(nano, hard)
    assert slip_probability(abacus, hard) < slip_probability(nano, hard)


def test_asking_twice_agrees_and_an_answer_is_the_right_method_or_the_models_own_slip() -> None:
    for question in generate(200, seed=3):
        reading = read(question.prompt)
        assert reading is not None
        for llm in POOL:
            reply = answer(llm.name, question.prompt)
            assert reply == answer(llm.name, question.prompt)
            assert final_answer(reply) in (reading.right.answer, reading.slips[llm.style].answer)


def test_no_simulated_llm_is_best_at_every_family() -> None:
    questions = generate(1000, seed=4)
    best: set[str] = set()
    for family in {question.family for question in questions}:
        asked = [question for question in questions if question.family == family]
        best.add(max(BY_NAME, key=lambda name: sum(is_correct(q.gold, answer(name, q.prompt)) for q in asked)))
    assert len(best) >= 4


def test_an_unparsed_prompt_or_an_unknown_name_gets_a_text_that_calls_itself_simulated() -> None:
    assert answer("sim-atlas-large", "Who wrote Faust?").startswith("[simulated answer of sim-atlas-large]")
    assert answer("claude-next", "What is 4 + 5?").startswith("[simulated answer of claude-next]")


def test_the_official_client_asks_streams_and_lists_models() -> None:
    prompt = "What is 4 + 5?"
    with run_simulator() as base_url, openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        assert base_url.endswith("/v1")
        assert sorted(model.id for model in client.models.list()) == sorted(SIMULATED_MODELS)
        whole = client.chat.completions.create(model="sim-abacus-math", messages=[{"role": "user", "content": prompt}])
        text = answer("sim-abacus-math", prompt)
        assert whole.choices[0].message.content == text
        assert whole.choices[0].finish_reason == "stop"
        assert whole.model == "sim-abacus-math"
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (4, -(-len(text) // 4))
        chunks = list(
            client.chat.completions.create(
                model="sim-abacus-math",
                messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 6
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_max_tokens_cuts_the_answer() -> None:
    with run_simulator(["x"]) as base_url, openai.OpenAI(base_url=base_url, api_key="none") as client:
        cut = client.chat.completions.create(model="x", messages=[{"role": "user", "content": "Hi"}], max_tokens=3)
    assert cut.choices[0].message.content == "[simulated a"
    assert cut.choices[0].finish_reason == "length"


def test_it_stands_in_for_any_names_and_refuses_the_others_as_openai_does() -> None:
    with run_simulator(["gpt-real"]) as base_url, openai.OpenAI(base_url=base_url, api_key="none") as client:
        reply = client.chat.completions.create(model="gpt-real", messages=[{"role": "user", "content": "Hi"}])
        assert (reply.choices[0].message.content or "").startswith("[simulated answer of gpt-real]")
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="sim-atlas-large", messages=[{"role": "user", "content": "Hi"}])
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError, match="messages"):
            client.chat.completions.create(model="gpt-real", messages=[])


def test_a_taken_port_is_said_plainly_and_free_again_after_the_block() -> None:
    with run_simulator() as first:
        port = int(first.split(":")[2].removesuffix("/v1"))
        with pytest.raises(ConfigError, match=f"port {port}"), run_simulator(port=port):
            pass
    with run_simulator(port=port) as again:
        assert again == first
