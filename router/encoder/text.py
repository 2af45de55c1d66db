"""What every encoder does to a prompt before it reads it: cut it to a length, and make it well-formed.

A prompt that is too long loses its middle: the instruction stands at one end of it, and the question at the other. Some
encoders read several windows of it before they cut.
"""

from collections.abc import Sequence
from itertools import pairwise


def shortened(prompt: str, max_chars: int) -> str:
    """Cut the middle out of a long prompt."""
    if len(prompt) <= max_chars:
        return prompt
    middle = surplus(len(prompt), max_chars)
    return f"{prompt[: middle.start]}\n{prompt[middle.stop :]}"


def readable(prompt: str, max_chars: int) -> str:
    """Cut the middle out of a long prompt, and replace lone surrogates, which no tokenizer takes, by question marks."""
    prompt = shortened(prompt, max_chars)
    return prompt if prompt.isascii() else prompt.encode("utf-8", "replace").decode("utf-8")


def surplus(length: int, limit: int) -> slice:
    """Say which middle part of a sequence goes beyond a limit; head and tail get half each, empty is nothing."""
    if length <= limit:
        return slice(length, length)
    tail = limit // 2
    return slice(limit - tail, length - tail)


def windows(tokens: Sequence[int], width: int, most: int) -> list[list[int]]:
    """Cut tokens into as few windows of at most a width as hold them, alike in length; beyond `most`, head and tail."""
    kept = list(tokens)
    del kept[surplus(len(kept), width * most)]
    n = -(-len(kept) // width)
    ends = [len(kept) * i // n for i in range(n + 1)] if n else []
    return [kept[start:end] for start, end in pairwise(ends)]
