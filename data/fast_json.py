"""JSON in ASCII without spaces, by orjson; what orjson would change or refuse goes through the standard library.

That is a NaN, half of a surrogate pair, a number beyond 64 bits, and what is nested hundreds deep: all of it can stand
in what an upstream answers or a client sends, and passes as it came. So does text beyond ASCII, in escapes: some
clients take U+2028 and its like for the end of a line. What is read can be written: nesting beyond MAX_DEPTH, which no
one means, is refused while it is read.
"""

import json
from datetime import datetime
from typing import Any

import orjson

MAX_DEPTH = 500  # half of what the interpreter's stack takes
SHALLOW = 250  # orjson writes that
LONG_NUMBER = b"0" * 19  # fewer digits are within 64 bits

_OPTIONS = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS
_DIGITS_AS_0 = bytes.maketrans(b"123456789", b"0" * 9)


class Odd(dict[str, Any]):
    """An object that the standard library alone could read, and will therefore write."""


def loads(content: bytes) -> object:
    """Read JSON that orjson reads and writes to the bit; ValueError where it is none, or must be read otherwise."""
    if LONG_NUMBER in content.translate(_DIGITS_AS_0):
        raise ValueError("it may hold a number beyond 64 bits")
    value: object = orjson.loads(content)
    if _n_brackets(content) > SHALLOW:
        try:
            orjson.dumps(value, option=_OPTIONS)
        except TypeError:
            raise ValueError("it is nested deeper than can be written") from None
    return value


def _n_brackets(content: bytes) -> int:
    """No fewer than JSON is levels deep."""
    return content.count(b"[") + content.count(b"{")


def is_too_deep(content: bytes, value: object) -> bool:
    """Whether JSON, and the value that was read from it, is nested beyond MAX_DEPTH."""
    if _n_brackets(content) <= MAX_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for each in level
            for child in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def read_object(content: bytes) -> dict[str, object] | None:
    """Read a JSON object, NaN and the like included; none where it is something else."""
    try:
        body = loads(content)
    except ValueError:
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            return None
        if not isinstance(body, dict) or is_too_deep(content, body):
            return None
        return Odd(body)
    return body if isinstance(body, dict) else None


def dumps(content: object) -> bytes:
    """Write JSON, times in ISO 8601. A NaN outside an `Odd` becomes null."""
    try:
        written = orjson.dumps(content, option=_OPTIONS)
    except TypeError:
        written = b""
    return written if written and written.isascii() else _ENCODER.encode(content).encode()


def text(content: object) -> str:
    """Write JSON as `dumps` does."""
    return dumps(content).decode()


def _isoformat(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_isoformat)
