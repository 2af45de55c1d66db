"""Code tracing: small Python programs whose output is found by running them, as the generator does."""

import contextlib
import io
from random import Random

from data.demo.question import Draft

_ASK = (
    "What does this Python program print?\n\n{p}",
    "Trace this code and give its output:\n\n{p}",
    "```python\n{p}\n```\nWhat is printed?",
    "Here is a short script.\n\n{p}\n\nWhat is its output?",
    "Without running it, say what this prints:\n\n{p}",
)
_COUNTERS = ("i", "j", "k", "step", "n", "index")
_TOTALS = ("total", "acc", "result", "value", "score", "amount")


def draft(rng: Random, level: int) -> Draft:
    """Draft one question of a level from 1 (a loop of two passes) to 10 (nested loops with branches)."""
    shapes = (_sum, _words) if level <= 2 else (_sum, _halving, _items) if level <= 5 else (_branch, _items, _halving)
    program = rng.choice(shapes if level <= 7 else (_nested, _branch))(rng, level)
    return Draft(rng.choice(_ASK).format(p=program), run(program))


def run(program: str) -> str:
    """Run one of these programs; what it printed, on one line."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "question", "exec"), {})
    return " ".join(printed.getvalue().split())


def _sum(rng: Random, level: int) -> str:
    i, t = rng.choice(_COUNTERS), rng.choice(_TOTALS)
    start, passes, factor = rng.randrange(0, 9), rng.randrange(level + 1, 2 * level + 2), rng.randrange(2, 9)
    body = rng.choice(
        (f"{t} += {i} * {factor}", f"{t} = {t} + {i}", f"{t} += {factor} - {i}", f"{t} -= {i} + {factor}")
    )
    return f"{t} = {rng.randrange(30)}\nfor {i} in range({start}, {start + passes}):\n    {body}\nprint({t})"


def _words(rng: Random, level: int) -> str:
    i, t = rng.choice(_COUNTERS), rng.choice(("text", "line", "s", "out"))
    piece = rng.choice(("ab", "xo", "na", "-=", "qr", "zap"))
    return f'{t} = ""\nfor {i} in range({rng.randrange(2, 4 + level)}):\n    {t} += "{piece}"\nprint(len({t}))'


def _halving(rng: Random, level: int) -> str:
    n, t = rng.choice(("n", "x", "number", "left")), rng.choice(("steps", "count", "rounds"))
    start, divisor = rng.randrange(9, 12 * 2**level), rng.choice((2, 3))
    extra = rng.choice((f"{t} += 1", f"{t} += {n} % {divisor + 1}", f"{t} = {t} + {n} % 2 + 1"))
    loop = f"while {n} > {rng.randrange(1, 4)}:\n    {n} = {n} // {divisor}\n    {extra}"
    return f"{n} = {start}\n{t} = 0\n{loop}\nprint({t})"


def _items(rng: Random, level: int) -> str:
    i, xs = rng.choice(_COUNTERS), rng.choice(("items", "xs", "values", "data"))
    n = rng.randrange(level, level + 4)
    made = rng.choice((f"{i} * {i} % {rng.randrange(5, 12)}", f"{i} * {rng.randrange(2, 7)} - {rng.randrange(9)}"))
    last = rng.choice((f"sum({xs})", f"{xs}[{rng.randrange(1, n - 1) if n > 2 else 0}]", f"{xs}[-1] + len({xs})"))
    return f"{xs} = []\nfor {i} in range(1, {n + 1}):\n    {xs}.append({made})\nprint({last})"


def _branch(rng: Random, level: int) -> str:
    i, t = rng.choice(_COUNTERS), rng.choice(_TOTALS)
    test = rng.choice((f"{i} % {rng.randrange(2, 5)} == 0", f"{i} > {rng.randrange(2, level + 2)}", f"{t} % 2 == 0"))
    yes = rng.choice((f"{t} += {i} * {rng.randrange(2, 8)}", f"{t} = {t} // 2 + {i}"))
    no = rng.choice((f"{t} -= {rng.randrange(1, 6)}", f"{t} += {i} % {rng.randrange(2, 5)}"))
    loop = f"for {i} in range({rng.randrange(0, 3)}, {rng.randrange(level, level + 6)}):"
    branch = f"    if {test}:\n        {yes}\n    else:\n        {no}"
    return f"{t} = {rng.randrange(4, 40)}\n{loop}\n{branch}\nprint({t})"


def _nested(rng: Random, level: int) -> str:
    a, b = rng.sample(_COUNTERS, 2)
    t = rng.choice(_TOTALS)
    inner = rng.choice((f"range({a})", f"range({rng.randrange(2, 5)})", f"range({a}, {rng.randrange(5, 8)})"))
    test = rng.choice((f"({a} + {b}) % {rng.randrange(2, 4)} == 0", f"{a} > {b}", f"{a} * {b} > {rng.randrange(2, 8)}"))
    yes = rng.choice(
        (f"{t} += {a} * {b}", f"{t} += {b} + {rng.randrange(1, 7)}", f"{t} = {t} * 2 % {rng.choice((31, 97))}")
    )
    no = rng.choice((f"{t} -= 1", f"{t} += {a}", f"{t} += {rng.randrange(2, 5)}"))
    loops = f"for {a} in range({rng.randrange(1, 3)}, {rng.randrange(4, level - 2)}):\n    for {b} in {inner}:"
    branch = f"        if {test}:\n            {yes}\n        else:\n            {no}"
    return f"{t} = {rng.randrange(1, 20)}\n{loops}\n{branch}\nprint({t})"
