"""What a prompt looks like, apart from its words: lengths, digits, options, formulas, code, negations.

These few numbers say much about how hard a question is, and an encoder of meaning does not hold them. Plain arithmetic
on text: nothing is fitted here.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.encoder.text import readable

NAMES = (
    "log characters",
    "log words",
    "log lines",
    "log digits",
    "log numbers",
    "longest number",
    "log operators",
    "log dollar signs",
    "log backslashes",
    "log question marks",
    "log parentheses",
    "log full stops",
    "log commas",
    "share of capitals",
    "share outside ASCII",
    "letters per word",
    "share of distinct words",
    "log negations",
    "options",
    "log letters per option",
    "spread of option lengths",
    "share of numeric options",
    "numbered statements",
    "blank to fill",
    "code",
)
N_SURFACE = len(NAMES)
MAX_CHARS = 16_000  # of a longer prompt, its head and tail

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_OPTION = re.compile(r"^[ \t]*\(?[A-J][).][ \t]?(.*)$", re.MULTILINE)
_NEGATION = re.compile(r"\b(?:not|except|never|no|false|incorrect|least|none)\b", re.IGNORECASE)
_STATEMENT = re.compile(r"\bstatement 1\b|\bI\.|\bII\.", re.IGNORECASE)
_CODE = re.compile(r"\bdef |\breturn\b|```|#include|\bfunction\b")
_OPERATORS = np.frombuffer(b"=+*/^<>-", dtype=np.uint8)


def describe(prompts: Sequence[str]) -> NDArray[np.float32]:
    """Describe prompts' surfaces as an array of shape (n_prompts, N_SURFACE); columns as in NAMES."""
    surface = np.zeros((len(prompts), N_SURFACE), dtype=np.float32)
    for row, prompt in enumerate(prompts):
        surface[row] = _describe(readable(prompt, MAX_CHARS))
    return surface


def _describe(text: str) -> list[float]:
    raw = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
    count = np.bincount(raw, minlength=256)
    n = len(raw) + 1
    words = text.split()
    numbers = _NUMBER.findall(text)
    options = _OPTION.findall(text)
    lengths = [len(option) for option in options] or [0]
    mean_length = sum(lengths) / len(lengths)
    log = np.log1p
    return [
        float(np.log(n)),
        float(log(len(words))),
        float(log(count[10])),
        float(log(count[48:58].sum())),
        float(log(len(numbers))),
        float(min(max((len(number) for number in numbers), default=0), 50)),
        float(log(count[_OPERATORS].sum())),
        float(log(count[ord("$")])),
        float(log(count[ord("\\")])),
        float(log(count[ord("?")])),
        float(log(count[ord("(")])),
        float(log(count[ord(".")])),
        float(log(count[ord(",")])),
        float(count[65:91].sum() / n),
        float(count[128:].sum() / n),
        len(text) / (len(words) + 1),
        len(set(words)) / (len(words) + 1),
        float(log(len(_NEGATION.findall(text)))),
        float(min(len(options), 20)),
        float(log(mean_length)),
        float(np.std(lengths)) / (mean_length + 1),
        sum(option.strip()[:1].isdigit() for option in options) / (len(options) + 1),
        float(_STATEMENT.search(text) is not None),
        float("____" in text),
        float(_CODE.search(text) is not None),
    ]
