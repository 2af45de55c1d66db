"""Word problems: an amount of money that goes through a chain of changes."""

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from random import Random

from data.demo.question import Draft
from data.demo.words import NAMES

_START = (
    "{n} buys a {t} priced at ${a}.",
    "A {t} costs ${a} in the shop.",
    "The {t} that {n} wants is listed at ${a}.",
    "{n} sells a {t} for ${a} at first.",
    "Last spring a {t} was worth ${a}.",
)
_THINGS = (
    "bicycle",
    "camera",
    "jacket",
    "lamp",
    "sofa",
    "phone",
    "drum kit",
    "kayak",
    "rug",
    "watch",
    "printer",
    "tent",
)
_UP = ("The price rises by {p}%.", "Tax adds {p}%.", "Demand pushes it up by {p}%.", "It then goes up by {p}%.")
_DOWN = (
    "A discount takes off {p}%.",
    "In the sale it drops by {p}%.",
    "It then falls by {p}%.",
    "A voucher cuts {p}%.",
)
_FEE = ("Delivery adds ${m}.", "A fee of ${m} comes on top.", "Wrapping costs another ${m}.")
_REFUND = ("A refund of ${m} is paid back.", "A coupon takes ${m} off.", "The seller returns ${m}.")
_SPLIT = ("The amount is split equally among {k} people.", "{k} friends share the amount equally.")
_END = (
    "What is the final amount in dollars, to the cent?",
    "How many dollars is it in the end (two decimals)?",
    "Give the resulting amount to the nearest cent.",
)
_END_EACH = ("How much does each pay, in dollars and cents?", "What is one share, to the cent?")


def draft(rng: Random, level: int) -> Draft:
    """Draft one question of a level from 1 (one change) to 10 (six changes with odd percentages)."""
    amount = rng.randrange(2, 12 + 8 * level) * (10 if level <= 4 else 1) + (0 if level <= 4 else rng.randrange(90))
    sentences = [rng.choice(_START).format(n=rng.choice(NAMES), t=rng.choice(_THINGS), a=amount)]
    value = Fraction(amount)
    for _ in range(1 + (level > 2) + (level > 4) + (level > 6) + (level > 8)):
        kind = rng.choice(("up", "down", "up", "down", "fee", "refund" if value > 20 else "fee"))
        percent = rng.randrange(1, 9) * 5 if level <= 5 else rng.randrange(3, 48)
        money = rng.randrange(1, 10)
        texts = {"up": _UP, "down": _DOWN, "fee": _FEE, "refund": _REFUND}[kind]
        sentences.append(rng.choice(texts).format(p=percent, m=money))
        part = value * percent / 100
        value += {"up": part, "down": -part, "fee": Fraction(money), "refund": Fraction(-money)}[kind]
    if rng.random() < 0.3:
        people = rng.randrange(2, 3 + level)
        sentences.append(rng.choice(_SPLIT).format(k=people))
        value /= people
        sentences.append(rng.choice(_END_EACH))
    else:
        sentences.append(rng.choice(_END))
    gold = (Decimal(value.numerator) / value.denominator).quantize(Decimal("0.01"), ROUND_HALF_UP)
    return Draft(" ".join(sentences), str(gold))
