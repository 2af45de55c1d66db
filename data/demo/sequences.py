"""Number sequences: the rule behind them grows from a constant step to interleaved and recursive ones."""

from random import Random

from data.demo.question import Draft

_ASK = (
    "What comes next: {s}, ...?",
    "Continue the sequence {s}. Give the next number only.",
    "Find the next term: {s}, __",
    "{s}, and then? State the number that follows.",
    "A pattern goes {s}. Which number continues it?",
    "Which number is missing at the end? {s}, ?",
)


def draft(rng: Random, level: int) -> Draft:
    """Draft one question of a level from 1 (a constant step) to 10 (two interleaved sequences)."""
    rules = (_steps, _steps, _steps, _ratio, _ratio, _squares, _squares, _fibonacci, _recursive, _interleaved)
    rule = rules[min(9, max(0, level - 1 + rng.choice((-1, 0, 0, 1))))]
    terms = rule(rng, level)
    return Draft(rng.choice(_ASK).format(s=", ".join(map(str, terms[:-1]))), str(terms[-1]))


def _steps(rng: Random, level: int) -> list[int]:
    start, step = rng.randrange(1, 30 * level), rng.choice((-1, 1)) * rng.randrange(2, 4 + 7 * level)
    return [start + step * n for n in range(rng.randrange(5, 7))]


def _ratio(rng: Random, level: int) -> list[int]:
    start, ratio = rng.randrange(1, 4 * level), rng.randrange(2, 5)
    return [start * ratio**n for n in range(5)]


def _squares(rng: Random, level: int) -> list[int]:
    a, b, c = rng.randrange(1, 4), rng.randrange(0, 9), rng.randrange(0, 10 * level)
    return [a * n * n + b * n + c for n in range(1, 7)]


def _fibonacci(rng: Random, level: int) -> list[int]:
    terms = [rng.randrange(1, 3 * level), rng.randrange(1, 4 * level)]
    while len(terms) < 7:
        terms.append(terms[-1] + terms[-2])
    return terms


def _recursive(rng: Random, level: int) -> list[int]:
    terms, factor, added = [rng.randrange(2, 2 + level)], rng.randrange(2, 4), rng.choice((-1, 1)) * rng.randrange(1, 8)
    while len(terms) < 6:
        terms.append(terms[-1] * factor + added)
    return terms


def _interleaved(rng: Random, level: int) -> list[int]:
    a, b = rng.randrange(2, 5 * level), rng.randrange(50, 90)
    up, down = rng.randrange(2, 12), rng.randrange(2, 9)
    return [a + up * (n // 2) if n % 2 == 0 else b - down * (n // 2) for n in range(9)]
