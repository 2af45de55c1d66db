"""Count days in the calendar, and wrongly: no leap years, months of thirty days, one end counted twice."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from router.simulated.reading import Method, Reading

_MONTHS = tuple(date(2000, month, 1).strftime("%B") for month in range(1, 13))
_NAMED = "|".join(_MONTHS)
_DATE = re.compile(
    rf"(?P<y1>\d{{4}})-(?P<m1>\d\d)-(?P<d1>\d\d)|(?P<d2>\d{{1,2}}) (?P<m2>{_NAMED}) (?P<y2>\d{{4}})"
    rf"|(?P<m3>{_NAMED}) (?P<d3>\d{{1,2}}), (?P<y3>\d{{4}})"
)
_OFFSET = re.compile(r"(\d+) days")
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ANCHOR = date(2024, 1, 1)  # a Monday, which every simulated LLM knows
_BEFORE_MONTH = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


@dataclass(frozen=True)
class Calendar:
    """A way to number days; `name_day` undoes `number`."""

    words: str
    number: Callable[[date], int]
    name_day: Callable[[int], str]


def _name_common_day(number: int) -> str:
    year, rest = divmod(number - 1, 365)
    month = max(m for m in range(12) if _BEFORE_MONTH[m] <= rest)
    return f"{year:04d}-{month + 1:02d}-{rest - _BEFORE_MONTH[month] + 1:02d}"


def _name_thirty_day(number: int) -> str:
    year, rest = divmod(number - 1, 360)
    return f"{year:04d}-{rest // 30 + 1:02d}-{rest % 30 + 1:02d}"


_EXACT = Calendar("counted in the calendar", date.toordinal, lambda number: date.fromordinal(number).isoformat())
_COMMON = Calendar(
    "took every year as 365 days", lambda d: d.year * 365 + _BEFORE_MONTH[d.month - 1] + d.day, _name_common_day
)
_THIRTY = Calendar("took every month as 30 days", lambda d: d.year * 360 + d.month * 30 - 30 + d.day, _name_thirty_day)


def read(prompt: str) -> Reading | None:
    """Parse a question about dates; none when it is something else."""
    try:
        dates = [_date(found) for found in _DATE.finditer(prompt)]
    except ValueError:  # 30 February and the like
        return None
    offset = _OFFSET.search(prompt)
    if len(dates) == 2 and "days" in prompt:
        first, second = dates
        difficulty = _difficulty((second - first).days)
        return _reading(
            difficulty, lambda calendar, extra: str(calendar.number(second) - calendar.number(first) + extra)
        )
    if len(dates) == 1 and offset:
        first, n_days = dates[0], int(offset.group(1))
        if first.toordinal() + n_days > date.max.toordinal():
            return None
        return _reading(
            _difficulty(n_days), lambda calendar, extra: calendar.name_day(calendar.number(first) + n_days - extra)
        )
    if len(dates) == 1 and re.search(r"weekday|day of the week", prompt):
        first = dates[0]
        return _reading(
            _difficulty((first - _ANCHOR).days),
            lambda calendar, extra: _WEEKDAYS[(calendar.number(first) - calendar.number(_ANCHOR) + extra) % 7],
        )
    return None


def _reading(difficulty: float, solve: Callable[[Calendar, int], str]) -> Reading:
    """Solve with each calendar; `solve` also takes how many days to count too many."""
    return Reading(
        family="dates",
        difficulty=difficulty,
        right=Method(_EXACT.words, solve(_EXACT, 0)),
        slips={
            "careless": Method("counted in the calendar, one end twice", solve(_EXACT, 1)),
            "shortcut": Method(_COMMON.words, solve(_COMMON, 0)),
            "confused": Method(_THIRTY.words, solve(_THIRTY, 0)),
        },
    )


def _difficulty(n_days: int) -> float:
    return min(10.0, 10 * math.log(1 + abs(n_days) / 3) / math.log(4000))


def _date(found: re.Match[str]) -> date:
    parts = {name[0]: text for name, text in found.groupdict().items() if text is not None}
    month = int(parts["m"]) if parts["m"].isdigit() else _MONTHS.index(parts["m"]) + 1
    return date(int(parts["y"]), month, int(parts["d"]))
