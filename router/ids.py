"""Ids of requests and decisions: unique, and no secret."""

from random import Random
from time import time_ns

# seeded by the system once; asking it for every id would let go of the interpreter's lock each time
_random = Random()


def new_id() -> str:
    """32 hexadecimal digits that no one else has, in the order of time as of RFC 9562's version 7.

    Ids that follow each other go to the end of an index; random ones rewrite a page of it each.
    """
    return f"{time_ns() // 1_000_000:012x}{_random.getrandbits(80):020x}"
