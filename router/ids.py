"""Ids of requests and decisions: unique, and no secret."""

from random import Random

# seeded by the system once; asking it for every id would let go of the interpreter's lock each time
_random = Random()


def new_id() -> str:
    """32 hexadecimal digits that no one else has."""
    return f"{_random.getrandbits(128):032x}"
