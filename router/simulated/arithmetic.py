"""Solve integer expressions, by columns as at school, and wrongly: lost carries, no precedence, a carry too many."""

import ast
import math
import re
from collections.abc import Callable

from router.simulated.reading import Method, Reading

_EXPRESSION = re.compile(r"\(?\d+(?:\s*[-+*×]\s*[(\d][\d)]*)+")
_WORDED = (
    (re.compile(r"add (\d+) to (\d+)", re.I), "{1} + {0}"),
    (re.compile(r"sum of (\d+) and (\d+)", re.I), "{0} + {1}"),
    (re.compile(r"product of (\d+) and (\d+)", re.I), "{0} * {1}"),
    (re.compile(r"subtract (\d+) from (\d+)", re.I), "{1} - {0}"),
    (re.compile(r"take (\d+) away from (\d+)", re.I), "{1} - {0}"),
    (re.compile(r"multiply (\d+) by (\d+)", re.I), "{0} * {1}"),
    (re.compile(r"(\d+) plus (\d+)", re.I), "{0} + {1}"),
    (re.compile(r"(\d+) minus (\d+)", re.I), "{0} - {1}"),
    (re.compile(r"(\d+) times (\d+)", re.I), "{0} * {1}"),
)
Apply = Callable[[ast.operator, int, int], int]


def read(prompt: str) -> Reading | None:
    """Parse an arithmetic prompt; none when it is something else."""
    expression = _expression(prompt)
    if expression is None:
        return None
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:
        return None
    flat = re.sub(r"[()]", "", expression)
    return Reading(
        family="arithmetic",
        difficulty=_difficulty(tree),
        right=Method("worked column by column, carrying, products first", str(_walk(tree, _exact))),
        slips={
            "careless": Method("worked column by column and lost the carries", str(_walk(tree, _without_carries))),
            "shortcut": Method("took the operations from left to right, the last one roughly", _left_to_right(flat)),
            "confused": Method("carried one too many", str(_walk(tree, _one_carry_too_many))),
        },
    )


def _expression(prompt: str) -> str | None:
    for pattern, form in _WORDED:
        if found := pattern.search(prompt):
            return form.format(*found.groups())
    found = _EXPRESSION.search(prompt)
    if found is None or re.search(r"[a-zA-Z]\w* *=|\d{4}-\d\d-\d\d", prompt):
        return None
    return found.group().replace("×", "*").strip()


def _difficulty(tree: ast.expr) -> float:
    cost = 0.0
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            left, right = _walk(node.left, _exact), _walk(node.right, _exact)
            digits = math.log10(abs(left) + 1) + math.log10(abs(right) + 1)
            cost += digits * (1.0 if isinstance(node.op, ast.Mult) else 0.5)
    return min(10.0, cost * 0.6)


def _walk(node: ast.expr, apply: Apply) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.BinOp):
        return apply(node.op, _walk(node.left, apply), _walk(node.right, apply))
    raise AssertionError("the pattern admits numbers and operations only")


def _exact(operator: ast.operator, a: int, b: int) -> int:
    return a + b if isinstance(operator, ast.Add) else a - b if isinstance(operator, ast.Sub) else a * b


def _without_carries(operator: ast.operator, a: int, b: int) -> int:
    if a < 0 or b < 0:
        return _exact(operator, a, b)
    if isinstance(operator, ast.Mult):
        rows = [_columns(a, digit, lambda x, y: x * y % 10) * 10**place for place, digit in enumerate(_digits(b))]
        return sum(rows)
    if isinstance(operator, ast.Add):
        return _columns(a, b, lambda x, y: (x + y) % 10)
    return _columns(a, b, lambda x, y: abs(x - y)) * (1 if a >= b else -1)


def _columns(a: int, b: int, column: Callable[[int, int], int]) -> int:
    """Combine two numbers digit by digit; one digit `b` meets every digit of `a` when multiplying."""
    left, right = _digits(a), _digits(b)
    if len(right) == 1 and column(2, 3) == 6:
        right = right * len(left)
    width = max(len(left), len(right))
    left, right = left + [0] * (width - len(left)), right + [0] * (width - len(right))
    return sum(column(x, y) * 10**place for place, (x, y) in enumerate(zip(left, right, strict=True)))


def _digits(number: int) -> list[int]:
    return [int(digit) for digit in reversed(str(number))]


def _one_carry_too_many(operator: ast.operator, a: int, b: int) -> int:
    exact = _exact(operator, a, b)
    return exact + 10 if isinstance(operator, ast.Add) else exact - 10 if isinstance(operator, ast.Sub) else exact + a


def _left_to_right(expression: str) -> str:
    """Ignore precedence and parentheses; an only operation is rounded to ten instead."""
    tokens = re.findall(r"\d+|[-+*]", expression)
    value = int(tokens[0])
    for operator, term in zip(tokens[1::2], tokens[2::2], strict=True):
        value = {"+": value + int(term), "-": value - int(term), "*": value * int(term)}[operator]
    return str(value if len(tokens) > 3 else round(value, -1))
