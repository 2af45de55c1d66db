"""Read, write and add Roman numerals, and wrongly: a sign lost, nothing ever subtracted, V and L mistaken."""

import re

from router.simulated.reading import Method, Reading

_VALUES = {"M": 1000, "D": 500, "C": 100, "L": 50, "X": 10, "V": 5, "I": 1}
_PLACES = (("M", "", ""), ("C", "D", "M"), ("X", "L", "C"), ("I", "V", "X"))
_NUMERAL = re.compile(r"\b[MDCLXVI]+\b")
_SWAPPED = str.maketrans("VL", "LV")


def read(prompt: str) -> Reading | None:
    """Parse a question about Roman numerals; none when it is something else."""
    if "roman" not in prompt.lower() and not re.search(r"stone reads", prompt):
        return None
    written = re.search(r"\b(\d{1,4})\b", prompt)
    numerals = [numeral for numeral in _NUMERAL.findall(prompt) if numeral != "I" or "numeral" in prompt]
    if written and 0 < int(written.group(1)) < 4000:
        return _write(int(written.group(1)))
    if not numerals or len(numerals) > 2:
        return None
    length = sum(map(len, numerals))
    return Reading(
        family="roman numerals",
        difficulty=min(10.0, length * 0.7 + 1.0 * (len(numerals) > 1)),
        right=Method("subtracted the smaller signs that stand before larger ones", str(sum(map(_value, numerals)))),
        slips={
            "careless": Method("overlooked the last sign", str(sum(map(_value, numerals)) - _VALUES[numerals[-1][-1]])),
            "shortcut": Method("added up the signs, at most ten of them", str(_added(numerals))),
            "confused": Method("took V for L and L for V", str(sum(_value(n.translate(_SWAPPED)) for n in numerals))),
        },
    )


def _write(number: int) -> Reading:
    right = "".join(_digit(int(digit), place) for digit, place in zip(f"{number:04d}", _PLACES, strict=True))
    added = "".join(_digit_added(int(digit), place) for digit, place in zip(f"{number:04d}", _PLACES, strict=True))
    return Reading(
        family="roman numerals",
        difficulty=min(10.0, len(right) * 0.8 + 0.3),
        right=Method("wrote it digit by digit", right),
        slips={
            "careless": Method("wrote it digit by digit and left out the last sign", right[:-1] or "N"),
            "shortcut": Method("only added signs, never subtracted", added),
            "confused": Method("took V for L and L for V", right.translate(_SWAPPED)),
        },
    )


def _digit(digit: int, place: tuple[str, str, str]) -> str:
    one, five, ten = place
    if digit == 9:
        return one + ten
    if digit == 4:
        return one + five if five else one * 4
    return (five if digit >= 5 else "") + one * (digit % 5)


def _digit_added(digit: int, place: tuple[str, str, str]) -> str:
    one, five, _ = place
    return one * digit if not five else five * (digit // 5) + one * (digit % 5)


def _value(numeral: str) -> int:
    values = [_VALUES[sign] for sign in numeral]
    return sum(-v if any(later > v for later in values[i + 1 : i + 2]) else v for i, v in enumerate(values))


def _added(numerals: list[str]) -> int:
    return sum(_VALUES[sign] for sign in "".join(numerals)[:10])
