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
_ASCII_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")  # the same where all text is ASCII, in half the time
_OPTION = re.compile(r"^[ \t]*\(?[A-J][).][ \t]?(.*)$", re.MULTILINE)
# of lower-cased text, where a search that starts at a letter skips to it
_NO = re.compile(r"n(?<=\bn)(?:o|ot|one|ever)\b")
_OTHER_NEGATIONS = ("except", "false", "incorrect", "least")
_OTHER_NEGATION = re.compile(rf"\b(?:{'|'.join(_OTHER_NEGATIONS)})\b")
_STATEMENT = re.compile(r"\b(?:statement 1\b|ii?\.)")
_CODE = re.compile(r"\b(?:def |return\b|function\b)")
_DIGIT, _OPERATOR, _CAPITAL, _BEYOND_ASCII, _OTHER = b"0", b"+", b"A", b"\xff", b" "
_KINDS = (  # of bytes, counted after one look at each
    (bytes(range(48, 58)), _DIGIT),
    (b"=+*/^<>-", _OPERATOR),
    (bytes(range(65, 91)), _CAPITAL),
    (bytes(range(128, 256)), _BEYOND_ASCII),
)
_KIND_OF = bytes(next((kind for some, kind in _KINDS if byte in some), _OTHER)[0] for byte in range(256))


def describe(prompts: Sequence[str]) -> NDArray[np.float32]:
    """Describe prompts' surfaces as an array of shape (n_prompts, N_SURFACE); columns as in NAMES."""
    surface = np.zeros((len(prompts), N_SURFACE), dtype=np.float32)
    for row, prompt in enumerate(prompts):
        surface[row] = _describe(readable(prompt, MAX_CHARS))
    return surface


def _describe(text: str) -> list[float]:
    raw = text.encode("utf-8")
    ascii_only = len(raw) == len(text)
    n = len(raw) + 1
    words = text.split()
    lower = text.lower()
    kinds = raw.translate(_KIND_OF)
    n_digits = kinds.count(_DIGIT)
    numbers = (_ASCII_NUMBER.findall(text) if n_digits else []) if ascii_only else _NUMBER.findall(text)
    options = _OPTION.findall(text) if "\n" in text or _OPTION.match(text) else []
    mean_length, spread = _lengths(options) if options else (0.0, 0.0)
    log = log1p
    return [
        log(len(raw)),
        log(len(words)),
        log(raw.count(b"\n")),
        log(n_digits),
        log(len(numbers)),
        float(min(max(map(len, numbers), default=0), 50)),
        log(kinds.count(_OPERATOR)),
        log(raw.count(b"$")),
        log(raw.count(b"\\")),
        log(raw.count(b"?")),
        log(raw.count(b"(")),
        log(raw.count(b".")),
        log(raw.count(b",")),
        kinds.count(_CAPITAL) / n,
        kinds.count(_BEYOND_ASCII) / n,
        len(text) / (len(words) + 1),
        len(set(words)) / (len(words) + 1),
        log(_count_negations(lower)),
        float(min(len(options), 20)),
        log(mean_length),
        spread / (mean_length + 1),
        sum([option.strip()[:1].isdigit() for option in options]) / (len(options) + 1),
        float(("statement 1" in lower or "i." in lower) and _STATEMENT.search(lower) is not None),
        float("____" in text),
        float("```" in text or "#include" in text or _shows_code(text)),
    ]


def _lengths(options: Sequence[str]) -> tuple[float, float]:
    """The mean length of options, and how far lengths spread about it."""
    lengths = [len(option) for option in options]
    mean = sum(lengths) / len(lengths)
    return mean, sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths))


def _count_negations(lower: str) -> int:
    n = len(_NO.findall(lower))
    if any(map(lower.__contains__, _OTHER_NEGATIONS)):  # a search that finds nothing takes much longer
        n += len(_OTHER_NEGATION.findall(lower))
    return n


def _shows_code(text: str) -> bool:
    return ("def " in text or "return" in text or "function" in text) and _CODE.search(text) is not None
