"""What a cell of a log may say, and what it means. A cell that may not say so raises CellError with the reason."""

import math

from data.model_names import name_fault

UNKNOWN = ("", "nan", "none", "null")
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "dev": "val", "test": "test"}
MAX_COUNT = 2**31 - 1  # what an INTEGER column holds


class CellError(ValueError):
    """A cell is not what its column allows."""


def text_of(value: object, column: str, max_length: int | None) -> str:
    """Read a text that must be there."""
    text = optional_text(value, column, max_length)
    if text is None or not text.strip():
        raise CellError(f"{column} is empty")
    return text


def model_name_of(value: object, column: str) -> str:
    """Read a model's name, which the router must be able to call it by."""
    name = text_of(value, column, 256).strip()
    if fault := name_fault(name):
        raise CellError(f"{column} is {_shown(name)}: {fault}")
    return name


def optional_text(value: object, column: str, max_length: int | None = None) -> str | None:
    """Read a text that may be absent."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    text = value if isinstance(value, str) else str(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise CellError(f"{column} is not UTF-8") from None
    if "\0" in text:
        raise CellError(f"{column} contains a NUL character")
    if max_length is not None and len(text) > max_length:
        raise CellError(f"{column} has {len(text)} characters, at most {max_length} are kept")
    return text


def label_of(label: object, score: float | None) -> int:
    """Read 0 or 1; where the label is absent, a score of one half or more is correct."""
    if isinstance(label, int | float) and label in (0, 1):
        return int(label)
    if not is_stated(label):
        if score is None:
            raise CellError("label is missing")
        return int(score >= 0.5)
    text = str(label).strip().lower()
    if text not in LABELS:
        raise CellError(f"label is {_shown(label)}, not 0 or 1")
    return LABELS[text]


def is_stated(label: object) -> bool:
    """Whether a cell says anything of a label."""
    return label is not None and str(label).strip().lower() not in UNKNOWN


def split_of_cell(value: object) -> str | None:
    """Read a split's name; None where the cell is empty."""
    text = "" if value is None else str(value).strip().lower()
    if text in UNKNOWN:
        return None
    if text not in SPLITS:
        raise CellError(f"split is {_shown(value)}, not train, val or test")
    return SPLITS[text]


def number_of(value: object, column: str, highest: float = math.inf) -> float | None:
    """Read a number from 0 to `highest`; None where it is unknown."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.strip().lower() in UNKNOWN:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise CellError(f"{column} is {_shown(value)}, not a number") from None
    if math.isnan(number):
        return None
    if not 0 <= number <= highest or math.isinf(number):
        allowed = "0 or more" if math.isinf(highest) else f"from 0 to {highest:g}"
        raise CellError(f"{column} is {_shown(value)}, it must be {allowed}")
    return number


def count_of(value: object, column: str) -> int | None:
    """Read a count; None where it is unknown, which logs also write as -1."""
    if value in (-1, "-1", "-1.0"):
        return None
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    number = number_of(value, column, MAX_COUNT)
    if number is not None and number != int(number):
        raise CellError(f"{column} is {_shown(value)}, not a whole number")
    return None if number is None else int(number)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
