"""Unit conversion: rarer units and compound ones are harder than powers of ten."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from random import Random

from data.demo.question import Draft


@dataclass(frozen=True)
class Conversion:
    """One unit of `source` is `factor` of `target`, after `offset` was taken off the source."""

    source: str
    target: str
    factor: Decimal
    offset: Decimal = Decimal(0)


def _c(source: str, target: str, factor: str, offset: str = "0", over: str = "1") -> Conversion:
    return Conversion(source, target, Decimal(factor) / Decimal(over), Decimal(offset))


_METRIC = (
    _c("kilometres", "metres", "1000"),
    _c("metres", "centimetres", "100"),
    _c("grams", "kilograms", "0.001"),
    _c("litres", "millilitres", "1000"),
    _c("hours", "minutes", "60"),
    _c("minutes", "seconds", "60"),
    _c("days", "hours", "24"),
    _c("millimetres", "centimetres", "0.1"),
)
_COMMON = (
    _c("miles", "kilometres", "1.609344"),
    _c("kilometres", "miles", "1", over="1.609344"),
    _c("inches", "centimetres", "2.54"),
    _c("feet", "metres", "0.3048"),
    _c("pounds", "kilograms", "0.45359237"),
    _c("kilograms", "pounds", "1", over="0.45359237"),
    _c("ounces", "grams", "28.349523125"),
    _c("US gallons", "litres", "3.785411784"),
    _c("degrees Fahrenheit", "degrees Celsius", "5", "32", "9"),
)
_RARE = (
    _c("nautical miles", "kilometres", "1.852"),
    _c("stones", "kilograms", "6.35029318"),
    _c("acres", "square metres", "4046.8564224"),
    _c("imperial pints", "millilitres", "568.26125"),
    _c("yards", "metres", "0.9144"),
    _c("furlongs", "metres", "201.168"),
    _c("troy ounces", "grams", "31.1034768"),
    _c("fathoms", "metres", "1.8288"),
)
_COMPOUND = (
    _c("miles per hour", "metres per second", "0.44704"),
    _c("kilometres per hour", "feet per second", "1", over="1.09728"),
    _c("knots", "metres per second", "1852", over="3600"),
    _c("miles per US gallon", "kilometres per litre", "1.609344", over="3.785411784"),
    _c("pounds per square foot", "kilograms per square metre", "0.45359237", over="0.09290304"),
    _c("acre-feet", "cubic metres", "1233.48183754752"),
)
_ASK = (
    "Convert {v} {s} to {t}{r}.",
    "How many {t} are {v} {s}{r}?",
    "Express {v} {s} in {t}{r}.",
    "A label reads {v} {s}; what is that in {t}{r}?",
    "What is {v} {s} in {t}{r}?",
    "My notes give {v} {s}. I need it in {t}{r}.",
    "Change {v} {s} into {t}{r}, please.",
)
_ROUND = (", to two decimals", ", rounded to 2 decimal places", " (two decimals)", " with two digits after the point")


def draft(rng: Random, level: int) -> Draft:
    """Draft one question of a level from 1 (powers of ten) to 10 (compound units)."""
    table = _METRIC if level <= 3 else _COMMON if level <= 6 else _RARE if level <= 8 else _COMPOUND
    conversion = rng.choice(table)
    size = (9, 40, 95, 60, 400, 980, 300, 2500, 500, 9000)[level - 1]
    value = Decimal(rng.randrange(2, size * 10)) / 10 if level > 2 else Decimal(rng.randrange(2, size))
    converted = (value - conversion.offset) * conversion.factor
    gold = converted.quantize(Decimal("0.01"), ROUND_HALF_UP)
    prompt = rng.choice(_ASK).format(v=value, s=conversion.source, t=conversion.target, r=rng.choice(_ROUND))
    return Draft(prompt, str(gold))
