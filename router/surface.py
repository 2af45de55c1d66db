"""What a prompt looks like, apart from its words: lengths, digits, options, formulas, code, negations.

These few numbers say much about how hard a question is, and an encoder of meaning does not hold them. Plain arithmetic
on text: nothing is fitted here.
"""

import re
from collections.abc import Sequence
from math import log1p, sqrt

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
# of lower-cased text: half the time of ignoring case
_NEGATION = re.compile(r"\b(?:not|except|never|no|false|incorrect|least|none)\b")
_STATEMENT = re.compile(r"\b(?:statement 1\b|ii?\.)")
_CODE = re.compile(r"\b(?:def |return\b|function\b)")
_OPERATORS = b"=+*/^<>-"


def describe(prompts: Sequence[str]) -> NDArray[np.float32]:
    """Describe prompts' surfaces as an array of shape (n_prompts, N_SURFACE); columns as in NAMES."""
    surface = np.zeros((len(prompts), N_SURFACE), dtype=np.float32)
    for row, prompt in enumerate(prompts):
        surface[row] = _describe(readable(prompt, MAX_CHARS))
    return surface


def _describe(text: str) -> list[float]:
    raw = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
    count = np.bincount(raw, minlength=256).tolist()
    n = len(raw) + 1
    words = text.split()
    lower = text.lower()
    numbers = _NUMBER.findall(text)
    options = _OPTION.findall(text)
    lengths = [len(option) for option in options] or [0]
    mean_length = sum(lengths) / len(lengths)
    spread = sqrt(sum((length - mean_length) ** 2 for length in lengths) / len(lengths))
    log = log1p
    return [
        log(len(raw)),
        log(len(words)),
        log(count[10]),
        log(sum(count[48:58])),
        log(len(numbers)),
        float(min(max((len(number) for number in numbers), default=0), 50)),
        log(sum(count[byte] for byte in _OPERATORS)),
        log(count[ord("$")]),
        log(count[ord("\\")]),
        log(count[ord("?")]),
        log(count[ord("(")]),
        log(count[ord(".")]),
        log(count[ord(",")]),
        sum(count[65:91]) / n,
        sum(count[128:]) / n,
        len(text) / (len(words) + 1),
        len(set(words)) / (len(words) + 1),
        log(len(_NEGATION.findall(lower))),
        float(min(len(options), 20)),
        log(mean_length),
        spread / (mean_length + 1),
        sum(option.strip()[:1].isdigit() for option in options) / (len(options) + 1),
        float(_STATEMENT.search(lower) is not None),
        float("____" in text),
        float("```" in text or "#include" in text or _CODE.search(text) is not None),
    ]
