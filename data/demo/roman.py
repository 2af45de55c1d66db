"""Roman numerals: reading, writing and adding them."""

from random import Random

from data.demo.question import Draft

_SIGNS = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"),
    (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip
_WRITE = (
    "Write {n} as a Roman numeral.",
    "What is {n} in Roman numerals?",
    "Turn the number {n} into Roman numerals.",
    "A clock tower should show {n} in Roman numerals; what is carved?",
)
_READ = (
    "Which number is the Roman numeral {r}?",
    "Convert {r} from Roman numerals to a decimal number.",
    "A stone reads {r}. What number is that?",
    "Read the Roman numeral {r} as an ordinary number.",
)
_ADD = (
    "Add the Roman numerals {a} and {b}; answer with an ordinary number.",
    "What is {a} + {b} in ordinary digits? Both are Roman numerals.",
    "Two Roman numerals, {a} and {b}: give their sum in digits.",
)


def draft(rng: Random, level: int) -> Draft:
    """Draft one question of a level from 1 (below 20) to 10 (in the thousands, or sums of such)."""
    low, high = ((2, 20), (8, 40), (20, 90), (40, 180), (90, 400), (150, 700), (300, 1200), (500, 2000), (900, 3000),
                 (1500, 3999))[level - 1]  # fmt: skip
    number = rng.randrange(low, high)
    kind = rng.choice(("write", "read", "add"))
    if kind == "write":
        return Draft(rng.choice(_WRITE).format(n=number), numeral(number))
    if kind == "read":
        return Draft(rng.choice(_READ).format(r=numeral(number)), str(number))
    other = rng.randrange(max(1, low // 2), high)
    return Draft(rng.choice(_ADD).format(a=numeral(number), b=numeral(other)), str(number + other))


def numeral(number: int) -> str:
    """Write a number from 1 to 3999 in Roman numerals."""
    text = ""
    for value, sign in _SIGNS:
        text += sign * (number // value)
        number %= value
    return text
