"""Follow an amount through its changes, and wrongly: the last change lost, percentages of the start, up for down."""

import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

from router.simulated.reading import Method, Reading

_START = re.compile(r"(?:priced at|costs|listed at|for|worth) \$(\d+(?:\.\d+)?)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_MONEY = re.compile(r"\$(\d+(?:\.\d+)?)")
_SHARED = re.compile(r"(?:among (\d+) people|(\d+) friends share)")
_DOWN = re.compile(r"takes? .*off|drops|falls|cuts|refund|returns|paid back|discount", re.I)


def read(prompt: str) -> Reading | None:
    """Parse a word problem about money; none when it is something else."""
    start = _START.search(prompt)
    if start is None:
        return None
    changes: list[tuple[str, Fraction]] = []
    for sentence in re.split(r"(?<=[.?])\s+", prompt[start.end() :]):
        sign = -1 if _DOWN.search(sentence) else 1
        if found := _SHARED.search(sentence):
            changes.append(("share", Fraction(found.group(1) or found.group(2))))
        elif found := _PERCENT.search(sentence):
            changes.append(("percent", sign * Fraction(found.group(1))))
        elif found := _MONEY.search(sentence):
            changes.append(("money", sign * Fraction(found.group(1))))
    if not changes or any(kind == "share" and value == 0 for kind, value in changes):
        return None
    amount = Fraction(start.group(1))
    odd = sum(kind == "percent" and value % 5 != 0 for kind, value in changes)
    last = changes[-1]
    turned = [*changes[:-1], (last[0], -last[1] if last[0] != "share" else 1 / last[1])]
    return Reading(
        family="word problems",
        difficulty=min(10.0, 1.3 * len(changes) + 0.5 * odd),
        right=Method("made the changes one after the other", _cents(_follow(amount, changes))),
        slips={
            "careless": Method("lost the last change", _cents(_follow(amount, changes[:-1]))),
            "shortcut": Method("took rough percentages of the first amount", _cents(_of_the_start(amount, changes))),
            "confused": Method("made the last change the other way", _cents(_follow(amount, turned))),
        },
    )


def _follow(amount: Fraction, changes: Sequence[tuple[str, Fraction]]) -> Fraction:
    for kind, value in changes:
        amount = {"percent": amount * (1 + value / 100), "money": amount + value, "share": amount / (value or 1)}[kind]
    return amount


def _of_the_start(start: Fraction, changes: Sequence[tuple[str, Fraction]]) -> Fraction:
    """Take every percentage of the first amount; an only percentage is rounded to tens instead."""
    percents = [value for kind, value in changes if kind == "percent"]
    total = sum(percents) if len(percents) > 1 else sum(round(value, -1) for value in percents)
    amount = start * (1 + Fraction(total) / 100) + sum(value for kind, value in changes if kind == "money")
    for kind, value in changes:
        amount = amount / value if kind == "share" else amount
    return amount


def _cents(value: Fraction) -> str:
    return str((Decimal(value.numerator) / value.denominator).quantize(Decimal("0.01"), ROUND_HALF_UP))
