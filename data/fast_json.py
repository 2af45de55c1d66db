"""JSON in ASCII without spaces, by orjson; what orjson would change or refuse goes through the standard library.

That is a NaN, half of a surrogate pair, a number beyond 64 bits, and whatever is nested hundreds deep: all of it can
stand in what an upstream answers or a client sends, and passes as it came. So does text beyond ASCII, in escapes: some
clients take U+2028 and its like for the end of a line.
"""

import json
import re
from datetime import datetime
from typing import Any

import orjson

_OPTIONS = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


class Odd(dict[str, Any]):
    """An object that the standard library alone could read, and will therefore write."""


def loads(content: bytes) -> object:
    """Read JSON that orjson reads to the bit; ValueError where it is none, or the standard library must read it."""
    if _LONG_NUMBER.search(content):
        raise ValueError("it may hold a number beyond 64 bits")
    return orjson.loads(content)


def read_object(content: bytes) -> dict[str, object] | None:
    """Read a JSON object, NaN and the like included; none where it is something else."""
    try:
        body = loads(content)
    except ValueError:
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            return None
        return Odd(body) if isinstance(body, dict) else None
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
