"""Convert units from its own table of factors, and wrongly: the wrong way round, a rough factor, the wrong unit's."""

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from router.simulated.reading import Method, Reading

_PATTERNS = (
    re.compile(r"(?:convert|express) ([\d.]+) ([\w -]+?) (?:to|in) ([\w -]+?)(?:,| \(| with| rounded|[.?]|$)", re.I),
    re.compile(r"how many ([\w -]+?) are ([\d.]+) ([\w -]+?)(?:,| \(| with| rounded|[.?]|$)", re.I),
    re.compile(r"reads ([\d.]+) ([\w -]+?); what is that in ([\w -]+?)(?:,| \(| with| rounded|[.?]|$)", re.I),
    re.compile(r"what is ([\d.]+) ([\w -]+?) in ([\w -]+?)(?:,| \(| with| rounded|[.?]|$)", re.I),
    re.compile(r"give ([\d.]+) ([\w -]+?)\. I need it in ([\w -]+?)(?:,| \(| with| rounded|[.?]|$)", re.I),
    re.compile(r"change ([\d.]+) ([\w -]+?) into ([\w -]+?)(?:,| \(| with| rounded|[.?]|$)", re.I),
)


@dataclass(frozen=True)
class Factor:
    """How many of the target one of the source is, and the factor that is often mistaken for it."""

    exact: Decimal
    mistaken: Decimal
    difficulty: float
    offset: Decimal = Decimal(0)


def _f(exact: str, mistaken: str, difficulty: float, over: str = "1", offset: str = "0") -> Factor:
    return Factor(Decimal(exact) / Decimal(over), Decimal(mistaken), difficulty, Decimal(offset))


_FACTORS = {
    ("kilometres", "metres"): _f("1000", "100", 0.5),
    ("metres", "centimetres"): _f("100", "1000", 0.5),
    ("grams", "kilograms"): _f("0.001", "0.01", 1.5),
    ("litres", "millilitres"): _f("1000", "100", 1),
    ("hours", "minutes"): _f("60", "100", 1.5),
    ("minutes", "seconds"): _f("60", "100", 1.5),
    ("days", "hours"): _f("24", "12", 2),
    ("millimetres", "centimetres"): _f("0.1", "0.01", 1),
    ("miles", "kilometres"): _f("1.609344", "1.852", 4),
    ("kilometres", "miles"): _f("1", "0.54", 5, over="1.609344"),
    ("inches", "centimetres"): _f("2.54", "2.45", 4),
    ("feet", "metres"): _f("0.3048", "0.33", 4.5),
    ("pounds", "kilograms"): _f("0.45359237", "0.5", 4.5),
    ("kilograms", "pounds"): _f("1", "2", 5, over="0.45359237"),
    ("ounces", "grams"): _f("28.349523125", "31.1034768", 5.5),
    ("us gallons", "litres"): _f("3.785411784", "4.54609", 6),
    ("degrees fahrenheit", "degrees celsius"): _f("5", "0.5", 5.5, over="9", offset="32"),
    ("nautical miles", "kilometres"): _f("1.852", "1.609344", 7),
    ("stones", "kilograms"): _f("6.35029318", "7", 7.5),
    ("acres", "square metres"): _f("4046.8564224", "10000", 8),
    ("imperial pints", "millilitres"): _f("568.26125", "473.176473", 8),
    ("yards", "metres"): _f("0.9144", "1", 6.5),
    ("furlongs", "metres"): _f("201.168", "220", 8),
    ("troy ounces", "grams"): _f("31.1034768", "28.349523125", 8),
    ("fathoms", "metres"): _f("1.8288", "1.5", 7.5),
    ("miles per hour", "metres per second"): _f("0.44704", "0.277777777778", 8.5),
    ("kilometres per hour", "feet per second"): _f("1", "1.466666666667", 9.5, over="1.09728"),
    ("knots", "metres per second"): _f("1852", "0.44704", 9, over="3600"),
    ("miles per us gallon", "kilometres per litre"): _f("1.609344", "0.354006", 9.5, over="3.785411784"),
    ("pounds per square foot", "kilograms per square metre"): _f("0.45359237", "5", 10, over="0.09290304"),
    ("acre-feet", "cubic metres"): _f("1233.48183754752", "1000", 10),
}


def read(prompt: str) -> Reading | None:
    """Parse a conversion; none when it is something else, or a unit is unknown."""
    asked = _asked(prompt)
    if asked is None:
        return None
    value, source, target = asked
    factor = _FACTORS.get((source.lower(), target.lower()))
    if factor is None:
        return None
    rough = Decimal(f"{factor.exact:.1e}")
    amount = Decimal(value)
    shifted = amount - factor.offset
    return Reading(
        family="unit conversion",
        difficulty=factor.difficulty + len(value.replace(".", "")) * 0.2 - 0.4,
        right=Method(f"used {factor.exact:.6g} as the factor", _cents(shifted * factor.exact)),
        slips={
            "careless": Method("converted the wrong way round", _cents(amount / factor.exact + factor.offset)),
            "shortcut": Method(
                f"used {rough.normalize():f} as the factor", _cents((amount - factor.offset / 2) * rough)
            ),
            "confused": Method(f"used {factor.mistaken} as the factor", _cents(shifted * factor.mistaken)),
        },
    )


def _asked(prompt: str) -> tuple[str, str, str] | None:
    for number, pattern in enumerate(_PATTERNS):
        if found := pattern.search(prompt):
            first, second, third = found.groups()
            return (second, third, first) if number == 1 else (first, second, third)
    return None


def _cents(value: Decimal) -> str:
    return str(value.quantize(Decimal("0.01"), ROUND_HALF_UP))
