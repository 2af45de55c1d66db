"""Every family that a simulated LLM can read, asked in turn."""

from collections.abc import Callable
from functools import lru_cache

from router.simulated import arithmetic, code, dates, letters, logic, lookup, percentages, roman, sequences, units
from router.simulated.reading import Reading

_READERS: tuple[Callable[[str], Reading | None], ...] = (
    code.read,
    lookup.read,
    roman.read,
    logic.read,
    letters.read,
    dates.read,
    percentages.read,
    units.read,
    sequences.read,
    arithmetic.read,
)


@lru_cache(maxsize=4096)
def read(prompt: str) -> Reading | None:
    """Parse a prompt; none when no family recognizes it."""
    for reader in _READERS:
        reading = reader(prompt)
        if reading is not None:
            return reading
    return None
