"""Lookups in small JSON documents: more records and sums over a condition are harder than one field."""

import json
from random import Random

from data.demo.question import Draft
from data.demo.words import WORDS

_COLOURS = ("red", "blue", "green", "white", "black", "orange")
_ASK = ("{d}\n\n{q}", "{q}\n\n{d}", "Use this JSON to answer. {q}\n{d}", "Data:\n{d}\nQuestion: {q}")
_FIELD = ('What is the "{f}" of the item named "{n}"?', 'Look up "{f}" for "{n}".', 'Which "{f}" does "{n}" have?')
_COUNT = ('How many items have colour "{c}"?', 'Count the items whose colour is "{c}".')
_SUM = (
    'What is the total "{f}" of the items with colour "{c}"?',
    'Add up "{f}" over every item whose colour is "{c}".',
)
_MOST = ('What is the name of the item with the highest "{f}"?', 'Which item (its name) has the largest "{f}"?')


def draft(rng: Random, level: int) -> Draft:
    """Draft one question of a level from 1 (two records, one field) to 10 (twelve records, a sum)."""
    n_rows = 2 + level
    names = rng.sample(WORDS, n_rows)
    palette = rng.sample(_COLOURS, 3)
    colours = [rng.choice(palette) for _ in names]
    numbers = {"qty": rng.sample(range(1, 99), n_rows), "price": rng.sample(range(2, 400), n_rows)}
    field, row = rng.choice(("qty", "price")), rng.randrange(n_rows)
    kinds = ("field", "field", "most") if level <= 4 else ("count", "most", "sum") if level <= 7 else ("sum",)
    kind, colour, values = rng.choice(kinds), colours[row], numbers[field]
    if kind == "field":
        question, gold = rng.choice(_FIELD).format(f=field, n=names[row]), str(values[row])
    elif kind == "count":
        question, gold = rng.choice(_COUNT).format(c=colour), str(colours.count(colour))
    elif kind == "most":
        question, gold = rng.choice(_MOST).format(f=field), names[values.index(max(values))]
    else:
        question = rng.choice(_SUM).format(f=field, c=colour)
        gold = str(sum(value for value, other in zip(values, colours, strict=True) if other == colour))
    columns = zip(names, colours, numbers["qty"], numbers["price"], strict=True)
    rows = [{"name": n, "colour": c, "qty": q, "price": p} for n, c, q, p in columns]
    document = json.dumps(rows, indent=rng.choice((None, None, 1)))
    return Draft(rng.choice(_ASK).format(d=document, q=question), gold)
