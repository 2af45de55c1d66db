"""A generated question, and how it is graded.

The grader reads what a model said; it does not know who said it or how it was found.
"""

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

_MARKER = re.compile(r"answer(?:\s+is)?\s*[:=]\s*(.+)", re.IGNORECASE)
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


@dataclass(frozen=True)
class Draft:
    """What a family's generator makes: a prompt and the answer that its construction implies."""

    prompt: str
    gold: str


@dataclass(frozen=True)
class Question:
    """A draft with its place in a set of questions."""

    question_id: str
    family: str
    prompt: str
    gold: str


def is_correct(gold: str, reply: str) -> bool:
    """Grade a reply: its final answer must be the gold answer, whatever its case, commas or currency sign.

    A number is compared at the gold's own decimal places; anything else must agree word for word.
    """
    target = _as_number(gold)
    if target is None:
        return _words(final_answer(reply)) == _words(gold)
    found = _as_number(final_answer(reply))
    if found is None:
        return False
    places = Decimal(1).scaleb(min(0, int(target.as_tuple().exponent)))
    if places == 1:
        return found == target
    return abs(found) < Decimal(10) ** 20 and found.quantize(places, ROUND_HALF_UP) == target


def final_answer(reply: str) -> str:
    """Find what a reply settles on: what follows its last "Answer:", else its last line."""
    marked = _MARKER.findall(reply)
    if marked:
        return str(marked[-1]).strip()
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _as_number(text: str) -> Decimal | None:
    """The one number in a text; none when there is no number, or more than one."""
    if re.search(r"\d{4}-\d{2}-\d{2}", text):
        return None
    numbers = _NUMBER.findall(text)
    if len(numbers) != 1:
        return None
    try:
        return Decimal(numbers[0].replace(",", ""))
    except InvalidOperation:  # pragma: no cover - the pattern admits decimal numbers only
        return None


def _words(text: str) -> list[str]:
    return [word.strip(".,;:!?\"'`*()[]").casefold() for word in text.replace(",", " ").split()]
