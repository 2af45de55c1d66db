"""String work on short word lists: reversing, counting, sorting, taking out vowels."""

from random import Random

from data.demo.question import Draft
from data.demo.words import WORDS

_REVERSE = (
    'Reverse the letters of "{t}".',
    'Spell "{t}" backwards, spaces included.',
    'Write "{t}" from the last character to the first.',
    'What does "{t}" read when every character is in reverse order?',
)
_COUNT = (
    'How many times does the letter "{c}" occur in "{t}"?',
    'Count the letter "{c}" in "{t}".',
    'In "{t}", how often do you find the letter "{c}"?',
    'Number of "{c}" letters in "{t}"?',
)
_SORT = (
    "Sort these words alphabetically: {t}.",
    "Put the following in alphabetical order: {t}.",
    "Arrange in dictionary order: {t}.",
    "Alphabetize this list: {t}.",
)
_VOWELS = (
    'Remove every vowel (a, e, i, o, u) from "{t}".',
    'What is left of "{t}" without its vowels a, e, i, o, u?',
    'Delete the vowels in "{t}" and keep the rest.',
)


def draft(rng: Random, level: int) -> Draft:
    """Draft one question of a level from 1 (one word) to 10 (ten words)."""
    words = rng.sample(WORDS, max(1, level))
    kind = rng.choice(("reverse", "count", "sort", "vowels") if level > 1 else ("reverse", "count", "vowels"))
    text = " ".join(words)
    if kind == "reverse":
        return Draft(rng.choice(_REVERSE).format(t=text), text[::-1])
    if kind == "count":
        letter = rng.choice([c for c in sorted(set(text)) if c != " " and text.count(c) >= min(2, level)] or [text[0]])
        return Draft(rng.choice(_COUNT).format(c=letter, t=text), str(text.count(letter)))
    if kind == "sort":
        return Draft(rng.choice(_SORT).format(t=", ".join(words)), ", ".join(sorted(words)))
    rest = "".join(c for c in text if c not in "aeiou")
    return Draft(rng.choice(_VOWELS).format(t=text), rest)
