"""Logic: orderings from comparisons, nested truth values, chains of made-up kinds."""

from itertools import pairwise
from random import Random

from data.demo.question import Draft
from data.demo.words import NAMES, NONSENSE

_RELATIONS = (
    ("taller", "shorter", "tallest", "shortest"),
    ("older", "younger", "oldest", "youngest"),
    ("faster", "slower", "fastest", "slowest"),
    ("heavier", "lighter", "heaviest", "lightest"),
)
_ORDINALS = ("second", "third", "fourth", "fifth")
_FOLLOWS = (
    "{p} Does it follow that all {a} are {b}? Answer yes or no.",
    "Suppose this: {p} Must every one of the {a} be one of the {b}? (yes/no)",
    "{p} From these statements alone, are all {a} certainly {b}? Yes or no.",
)
_TRUTH = (
    "{v}. What is the truth value of {e}?",
    "Given that {v}, evaluate {e}. True or False?",
    "Assume that {v}. Is {e} True or False?",
)


def draft(rng: Random, level: int) -> Draft:
    """Draft one question of a level from 1 (two facts) to 10 (nine people, or deep nesting)."""
    kind = rng.choice((_ordering, _ordering, _truth, _chain))
    return kind(rng, level)


def _ordering(rng: Random, level: int) -> Draft:
    more, less, most, least = rng.choice(_RELATIONS)
    people = rng.sample(NAMES, 3 + level // 2 + (level > 6))
    statements = [
        f"{a} is {more} than {b}." if rng.random() < 0.6 else f"{b} is {less} than {a}." for a, b in pairwise(people)
    ]
    rng.shuffle(statements)
    asked = {f"the {most}": people[0], f"the {least}": people[-1]}
    if level > 3:
        place = rng.randrange(1, min(5, len(people) - 1))
        asked = {f"the {_ORDINALS[place - 1]} {most}": people[place]}
    label = rng.choice(sorted(asked))
    return Draft(f"{' '.join(statements)} Who is {label}?", asked[label])


def _truth(rng: Random, level: int) -> Draft:
    names = rng.sample("PQRSTUVW", min(2 + level // 3, 5))
    values = {name: rng.random() < 0.5 for name in names}
    expression = _formula(rng, names, 1 + level // 2)
    given = rng.choice((", ", " and ", "; ")).join(f"{n} is {str(v).lower()}" for n, v in values.items())
    return Draft(rng.choice(_TRUTH).format(v=given, e=expression), str(bool(eval(expression, {}, values))))


def _formula(rng: Random, names: list[str], n_operators: int) -> str:
    if n_operators == 0:
        name = rng.choice(names)
        return f"not {name}" if rng.random() < 0.4 else name
    left = rng.randrange(n_operators)
    sides = [_formula(rng, names, n) for n in (left, n_operators - 1 - left)]
    a, b = (f"({side})" if " and " in side or " or " in side else side for side in sides)
    return f"{a} {rng.choice(('and', 'or'))} {b}"


def _chain(rng: Random, level: int) -> Draft:
    kinds = rng.sample(NONSENSE, 3 + level // 2)
    length = rng.randrange(2, len(kinds) + 1)
    facts = list(pairwise(kinds[:length]))
    facts += [(kind, rng.choice(kinds[: length - 1])) for kind in kinds[length:]]
    rng.shuffle(facts)
    a, b = (kinds[0], kinds[length - 1]) if rng.random() < 0.5 else rng.sample(kinds, 2)
    premises = " ".join(f"All {x} are {y}." for x, y in facts)
    known, reached = {a}, {a}
    while reached:
        reached = {y for x, y in facts if x in reached} - known
        known |= reached
    return Draft(rng.choice(_FOLLOWS).format(p=premises, a=a, b=b), "yes" if b in known else "no")
