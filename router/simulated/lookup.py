"""Look things up in a JSON list, and wrongly: a record missed, half of them read, the wrong field."""

import json
import re
from typing import Any

from router.simulated.reading import Method, Reading, Style

_FIELD = re.compile(r'(?:What is the|Look up|Which) "(\w+)" (?:of the item named|for|does) "(\w+)"')
_COUNT = re.compile(r'(?:How many items have colour|items whose colour is) "(\w+)"')
_SUM = re.compile(r'(?:total|Add up) "(\w+)" .*?colour (?:is )?"(\w+)"')
_MOST = re.compile(r'(?:highest|largest) "(\w+)"')
Row = dict[str, Any]


def read(prompt: str) -> Reading | None:
    """Parse a question over a JSON list of records; none when it is something else."""
    start, end = prompt.find("["), prompt.rfind("]")
    if start < 0:
        return None
    try:
        rows = json.loads(prompt[start : end + 1])
    except ValueError:
        return None
    if not isinstance(rows, list) or len(rows) < 2 or not all(isinstance(row, dict) for row in rows):
        return None
    question = prompt[:start] + prompt[end + 1 :]
    try:
        return _answer(question, rows)
    except (KeyError, TypeError):  # a field that a record lacks, or that is no number
        return None


def _answer(question: str, rows: list[Row]) -> Reading | None:
    if found := _SUM.search(question):
        field, colour = found.groups()
        chosen = [row for row in rows if row["colour"] == colour]
        early = [row for row in rows[: len(rows) // 2] if row["colour"] == colour]
        return _reading(
            2.5 + 0.62 * len(rows),
            Method("added up over every matching record", str(_total(chosen, field))),
            Method("added up and missed the last matching record", str(_total(chosen[:-1], field))),
            Method("added up over the first half of the records", str(_total(early, field))),
            Method("added up the wrong field", str(_total(chosen, _other(field)))),
        )
    if found := _MOST.search(question):
        field = found.group(1)
        ranked = sorted(rows, key=lambda row: -row[field])
        early = sorted(rows[: len(rows) // 2], key=lambda row: -row[field])
        return _reading(
            1.5 + 0.5 * len(rows),
            Method("compared all records", ranked[0]["name"]),
            Method("compared the records and took the second", ranked[1]["name"]),
            Method("compared the first half of the records", early[0]["name"]),
            Method("took the smallest", ranked[-1]["name"]),
        )
    if found := _FIELD.search(question):
        field, name = found.groups()
        place = next((place for place, row in enumerate(rows) if row["name"] == name), None)
        if place is None:
            return None
        return _reading(
            0.4 * len(rows),
            Method("found the record and read its field", str(rows[place][field])),
            Method("read the record before it", str(rows[place - 1][field])),
            Method("read the first record", str(rows[0][field])),
            Method("read the wrong field", str(rows[place][_other(field)])),
        )
    if found := _COUNT.search(question):
        colour = found.group(1)
        n_found = sum(row["colour"] == colour for row in rows)
        n_early = sum(row["colour"] == colour for row in rows[: len(rows) // 2])
        return _reading(
            1.5 + 0.5 * len(rows),
            Method("counted every matching record", str(n_found)),
            Method("counted and missed the last matching record", str(max(0, n_found - 1))),
            Method("counted in the first half of the records", str(n_early)),
            Method("counted the records that do not match", str(len(rows) - n_found)),
        )
    return None


def _total(rows: list[Row], field: str) -> int:
    return sum(row[field] for row in rows)


def _other(field: str) -> str:
    return "price" if field == "qty" else "qty"


def _reading(difficulty: float, right: Method, careless: Method, shortcut: Method, confused: Method) -> Reading:
    slips: dict[Style, Method] = {"careless": careless, "shortcut": shortcut, "confused": confused}
    return Reading("lookup", min(10.0, difficulty), right, slips)
