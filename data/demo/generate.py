"""A set of questions from a seed: the families in turn, at levels drawn evenly."""

from collections.abc import Callable
from random import Random

from data.demo import arithmetic, code, dates, letters, logic, lookup, percentages, roman, sequences, units
from data.demo.question import Draft, Question

N_LEVELS = 10
FAMILIES: dict[str, Callable[[Random, int], Draft]] = {
    "arithmetic": arithmetic.draft,
    "code tracing": code.draft,
    "dates": dates.draft,
    "logic": logic.draft,
    "lookup": lookup.draft,
    "roman numerals": roman.draft,
    "sequences": sequences.draft,
    "string work": letters.draft,
    "unit conversion": units.draft,
    "word problems": percentages.draft,
}


def generate(n_questions: int, seed: int) -> list[Question]:
    """Generate questions with distinct prompts; the same seed gives the same questions."""
    rng = Random(seed)
    families = list(FAMILIES.items())
    questions: list[Question] = []
    prompts: set[str] = set()
    while len(questions) < n_questions:
        name, draft = families[len(questions) % len(families)]
        drafted = draft(rng, rng.randrange(1, N_LEVELS + 1))
        if drafted.prompt in prompts:
            continue
        prompts.add(drafted.prompt)
        number = len(questions)
        questions.append(Question(f"demo-{seed}-{number:05d}", name, drafted.prompt, drafted.gold))
    return questions
