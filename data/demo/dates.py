"""Dates: weekdays, spans and offsets; the farther apart the dates, the harder."""

from datetime import date, timedelta
from random import Random

from data.demo.question import Draft

_MONTHS = tuple(date(2000, month, 1).strftime("%B") for month in range(1, 13))
_WEEKDAY = (
    "What day of the week was {a}?",
    "On which weekday does {a} fall?",
    "Name the weekday of {a}.",
    "{a}: which day of the week is it?",
    "My diary has an entry for {a}. Which weekday was that?",
)
_BETWEEN = (
    "How many days are there from {a} to {b}?",
    "Count the days between {a} and {b}.",
    "A lease runs from {a} until {b}. How many days later is the second date?",
    "What is the number of days from {a} until {b}?",
)
_AFTER = (
    "Which date comes {n} days after {a}? Use YYYY-MM-DD.",
    "Add {n} days to {a} and give the date as YYYY-MM-DD.",
    "A parcel sent on {a} arrives {n} days later. On what date (YYYY-MM-DD)?",
    "Starting at {a}, go forward {n} days. Date in YYYY-MM-DD?",
)


def draft(rng: Random, level: int) -> Draft:
    """Draft one question of a level from 1 (within a month) to 10 (across a century)."""
    kind = rng.choice(("weekday", "between", "after"))
    if kind == "weekday":
        years = round(1.7**level / 2)
        day = date(2024, 1, 1) + timedelta(days=rng.choice((-1, 1)) * rng.randrange(years * 180, years * 365 + 200))
        return Draft(rng.choice(_WEEKDAY).format(a=_show(rng, day)), day.strftime("%A"))
    low = round(2.4 ** (level - 1))
    n_days = rng.randrange(low + 2, round(low * 2.4) + 8)
    start = date(1950, 1, 1) + timedelta(days=rng.randrange(27000))
    end = start + timedelta(days=n_days)
    if kind == "between":
        prompt = rng.choice(_BETWEEN).format(a=_show(rng, start), b=_show(rng, end))
        return Draft(prompt, str(n_days))
    return Draft(rng.choice(_AFTER).format(a=_show(rng, start), n=n_days), end.isoformat())


def _show(rng: Random, day: date) -> str:
    month = _MONTHS[day.month - 1]
    return rng.choice((day.isoformat(), f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}"))
