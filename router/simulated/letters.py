"""Work on strings letter by letter, and wrongly: word by word, doubled letters seen once, first letters only."""

import re

from router.simulated.reading import Method, Reading, Style

_QUOTED = re.compile(r'"([a-z ]+)"')
_LIST = re.compile(r": ([a-z]+(?:, [a-z]+)+)\.?$")


def read(prompt: str) -> Reading | None:
    """Parse a question about letters and words; none when it is something else."""
    quoted = _QUOTED.findall(prompt)
    listed = _LIST.search(prompt)
    if re.search(r"alphabet|dictionary order", prompt, re.I) and listed:
        return _sorted(listed.group(1).split(", "))
    if "letter" in prompt and len(quoted) == 2:
        letter, text = sorted(quoted, key=len)
        return _counted(letter, text) if len(letter) == 1 else None
    if "vowels" in prompt or "vowel" in prompt:
        return _without_vowels(quoted[0]) if len(quoted) == 1 else None
    if re.search(r"reverse|backwards|last character to the first", prompt, re.I) and len(quoted) == 1:
        return _reversed(quoted[0])
    return None


def _reversed(text: str) -> Reading:
    words = text.split()
    by_word = " ".join(reversed(words)) if len(words) > 1 else text[-1] + text[1:-1] + text[0]
    each = " ".join(word[::-1] for word in words) if len(words) > 1 else text[::-1][:-1]
    return _reading(
        len(text) * 0.14 + 0.3,
        Method("went from the last letter to the first", text[::-1]),
        Method("went from the last letter to the first and lost one in the middle", _drop_middle(text[::-1])),
        Method("reversed the order of the words", by_word),
        Method("reversed each word in its place", each),
    )


def _counted(letter: str, text: str) -> Reading:
    return _reading(
        len(text) * 0.12 + text.count(letter) * 0.3,
        Method("went through it letter by letter", str(text.count(letter))),
        Method("counted a doubled letter once and the last word not at all", str(_careless_count(letter, text))),
        Method("counted the words that have it", str(sum(letter in word for word in text.split()) - (" " not in text))),
        Method("also counted a letter that looks like it", str(text.count(letter) + text.count(_twin(letter)))),
    )


def _sorted(words: list[str]) -> Reading:
    swapped = sorted(words)
    middle = len(swapped) // 2
    swapped[middle - 1], swapped[middle] = swapped[middle], swapped[middle - 1]
    return _reading(
        len(words) + 0.3,
        Method("compared whole words", ", ".join(sorted(words))),
        Method("compared whole words and put two of them down in the wrong order", ", ".join(swapped)),
        Method("compared only first letters", ", ".join(sorted(words, key=lambda word: word[0]))),
        Method("sorted by length", ", ".join(sorted(words, key=len))),
    )


def _without_vowels(text: str) -> Reading:
    rest = "".join(c for c in text if c not in "aeiou")
    return _reading(
        len(text) * 0.12,
        Method("took out a, e, i, o and u", rest),
        Method("took out a, e, i, o and u, and one letter too many", _drop_middle(rest)),
        Method("took out a, e, i and o", "".join(c for c in text if c not in "aeio")),
        Method("took out the consonants", "".join(c for c in text if c in "aeiou ")),
    )


def _reading(difficulty: float, right: Method, careless: Method, shortcut: Method, confused: Method) -> Reading:
    slips: dict[Style, Method] = {"careless": careless, "shortcut": shortcut, "confused": confused}
    return Reading("string work", min(10.0, difficulty), right, slips)


def _drop_middle(text: str) -> str:
    return text[: len(text) // 2] + text[len(text) // 2 + 1 :]


def _careless_count(letter: str, text: str) -> int:
    seen = text.rsplit(" ", 1)[0] if " " in text else text[:-1]
    return len(re.findall(f"{letter}+", seen))


def _twin(letter: str) -> str:
    """The letter most easily taken for this one."""
    twins = {"b": "d", "d": "b", "m": "n", "n": "m", "i": "l", "l": "i", "a": "o", "o": "a", "u": "v", "v": "u"}
    return twins.get(letter, "e" if letter != "e" else "c")
