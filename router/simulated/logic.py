"""Reason over orderings, truth values and kinds, and wrongly: by order of mention, without `not`, converting `all`."""

import ast
import re

from router.simulated.reading import Method, Reading

_COMPARED = re.compile(r"(\w+) is (\w+er) than (\w+)\.")
_ASKED = re.compile(r"Who is the (?:(\w+) )?(\w+est)\?")
_PLACES = {None: 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4}
_OPPOSITE = {
    "taller": "shorter", "older": "younger", "faster": "slower", "heavier": "lighter",
    "shorter": "taller", "younger": "older", "slower": "faster", "lighter": "heavier",
}  # fmt: skip
_VALUE = re.compile(r"\b([P-W]) is (true|false)\b", re.I)
_FORMULA = re.compile(r"(?:truth value of|evaluate|Is) ((?:[P-W()\s]|and\b|or\b|not\b)+?)(?:[?.]| True or)")
_ALL = re.compile(r"All (\w+) are (\w+)\.")
_FOLLOWS = re.compile(r"(?:are all|that all|every one of the) (\w+) (?:certainly |are |be one of the )?(\w+)")


def read(prompt: str) -> Reading | None:
    """Parse a logic prompt; none when it is something else."""
    return _ordering(prompt) or _truth(prompt) or _kinds(prompt)


def _ordering(prompt: str) -> Reading | None:
    facts, asked = _COMPARED.findall(prompt), _ASKED.search(prompt)
    if not facts or asked is None or asked.group(1) not in _PLACES:
        return None
    quality = re.sub("iest$", "ier", asked.group(2)).removesuffix("est").removesuffix("ier")
    quality = f"{quality}ier" if asked.group(2).endswith("iest") else f"{quality}er"
    place = _PLACES[asked.group(1)]
    straight = [(a, b) if relation == quality else (b, a) for a, relation, b in facts if relation in _OPPOSITE]
    ranking = _rank(straight)
    as_mentioned = list(dict.fromkeys(name for a, _, b in facts for name in (a, b)))
    blind = _rank([(a, b) for a, _, b in facts])
    if place >= len(ranking):
        return None
    return Reading(
        family="logic",
        difficulty=min(10.0, (len(ranking) - 2) * 1.25 + 1.0 * (place > 0)),
        right=Method("put everyone in one order", ranking[place]),
        slips={
            "careless": Method("put everyone in one order and counted from the wrong end", ranking[-1 - place]),
            "shortcut": Method("took the order in which they are mentioned", as_mentioned[place]),
            "confused": Method("read every comparison the same way round", blind[place]),
        },
    )


def _rank(above: list[tuple[str, str]]) -> list[str]:
    """Order names so that each stands before those below it; where facts run in a circle, as they come."""
    names = list(dict.fromkeys(name for pair in above for name in pair))
    ranking: list[str] = []
    while len(ranking) < len(names):
        rest = [name for name in names if name not in ranking]
        free = [name for name in rest if not any(b == name and a in rest for a, b in above)]
        ranking.append((free or rest)[0])
    return ranking


def _truth(prompt: str) -> Reading | None:
    values = {name: value.lower() == "true" for name, value in _VALUE.findall(prompt)}
    found = _FORMULA.search(prompt)
    if not values or found is None:
        return None
    formula = found.group(1)
    try:
        tree = ast.parse(formula, mode="eval").body
    except SyntaxError:
        return None
    flat = re.sub(r"[()]", "", formula)
    without_not = re.sub(r"\bnot ", "", formula)
    n_operators = len(re.findall(r"\b(?:and|or)\b", formula))
    return Reading(
        family="logic",
        difficulty=min(10.0, 1.5 * n_operators + 0.5 * formula.count("not")),
        right=Method("evaluated the innermost parentheses first", str(_holds(tree, values))),
        slips={
            "careless": Method("overlooked every `not`", str(_holds(ast.parse(without_not, mode="eval").body, values))),
            "shortcut": Method("ignored the parentheses", str(_holds(ast.parse(flat, mode="eval").body, values))),
            "confused": Method("took `or` for `either, not both`", str(_holds(tree, values, exclusive=True))),
        },
    )


def _holds(node: ast.expr, values: dict[str, bool], *, exclusive: bool = False) -> bool:
    match node:
        case ast.Name(id=name):
            return values.get(name, False)
        case ast.UnaryOp(operand=operand):
            return not _holds(operand, values, exclusive=exclusive)
        case ast.BoolOp(op=ast.And(), values=sides):
            return all(_holds(side, values, exclusive=exclusive) for side in sides)
        case ast.BoolOp(values=sides):
            n_true = sum(_holds(side, values, exclusive=exclusive) for side in sides)
            return n_true == 1 if exclusive else n_true > 0
    raise AssertionError("the pattern admits names, `not`, `and` and `or` only")


def _kinds(prompt: str) -> Reading | None:
    facts, asked = _ALL.findall(prompt), _FOLLOWS.search(_ALL.sub("", prompt))
    if not facts or asked is None:
        return None
    a, b = asked.groups()
    both_ways = facts + [(y, x) for x, y in facts]
    n_steps = len(facts)
    return Reading(
        family="logic",
        difficulty=min(10.0, 1.3 * n_steps),
        right=Method("followed the chain of kinds", _yes(b in _reach(facts, a))),
        slips={
            "careless": Method("followed the chain for one step only", _yes((a, b) in facts)),
            "shortcut": Method("took `all A are B` as `all B are A` too", _yes(b in _reach(both_ways, a))),
            "confused": Method("followed the chain the wrong way", _yes(a in _reach(facts, b))),
        },
    )


def _reach(facts: list[tuple[str, str]], start: str) -> set[str]:
    reached = {start}
    for _ in facts:
        reached |= {y for x, y in facts if x in reached}
    return reached


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
