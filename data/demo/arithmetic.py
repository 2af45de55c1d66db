"""Arithmetic: how long it is and how large its numbers are is how hard it is."""

import ast
from random import Random

from data.demo.question import Draft

_ASK = (
    "What is {e}?",
    "Calculate {e}.",
    "Work out the value of {e}.",
    "Please evaluate {e}",
    "{e} = ?",
    "Give me the result of {e}.",
    "How much is {e}?",
    "I need the exact value of {e}, nothing else.",
    "Compute the expression {e}.",
    "Arithmetic check: {e} equals what?",
)
_IN_WORDS = {
    "+": ("What do you get when you add {a} to {b}?", "Find the sum of {a} and {b}.", "What is {a} plus {b}?"),
    "-": ("Subtract {b} from {a}.", "What is {a} minus {b}?", "Take {b} away from {a}; what is left?"),
    "*": ("Find the product of {a} and {b}.", "Multiply {a} by {b}.", "What is {a} times {b}?"),
}


def draft(rng: Random, level: int) -> Draft:
    """Draft one question of a level from 1 (one small sum) to 10 (four operations on long numbers)."""
    n_operations = 1 + (level > 3) + (level > 6) + (level > 8)
    n_digits = 1 + (level + 1) // 3
    operators = [rng.choice("+-" if level <= 2 else "+-*") for _ in range(n_operations)]
    values = [_number(rng, n_digits) for _ in range(n_operations + 1)]
    for position, operator in enumerate(operators):
        if operator == "*":
            values[position + 1] = _number(rng, min(n_digits, 1 + (level > 4) + (level > 8)))
    if n_operations == 1 and rng.random() < 0.4:
        a, b = values
        prompt = rng.choice(_IN_WORDS[operators[0]]).format(a=a, b=b)
        return Draft(prompt, str(_value(f"{a} {operators[0]} {b}")))
    terms = [str(value) for value in values]
    if n_operations > 1 and rng.random() < 0.4:
        opened = rng.randrange(n_operations)
        terms[opened], terms[opened + 1] = f"({terms[opened]}", f"{terms[opened + 1]})"
    expression = terms[0] + "".join(f" {o} {t}" for o, t in zip(operators, terms[1:], strict=True))
    shown = expression.replace("*", rng.choice("*×")) if rng.random() < 0.5 else expression
    return Draft(rng.choice(_ASK).format(e=shown), str(_value(expression)))


def _number(rng: Random, n_digits: int) -> int:
    return rng.randrange(max(2, 10 ** (n_digits - 1)), 10**n_digits)


def _value(expression: str) -> int:
    return int(eval(compile(ast.parse(expression, mode="eval"), "question", "eval")))
