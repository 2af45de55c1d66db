"""What every encoder does to a prompt before it reads it: cut it to a length, and make it well-formed.

A prompt that is too long loses its middle: the instruction stands at one end of it, and the question at the other.
"""


def readable(prompt: str, max_chars: int) -> str:
    """Cut the middle out of a long prompt, and replace lone surrogates, which no tokenizer takes, by question marks."""
    if len(prompt) > max_chars:
        middle = surplus(len(prompt), max_chars)
        prompt = f"{prompt[: middle.start]}\n{prompt[middle.stop :]}"
    return prompt if prompt.isascii() else prompt.encode("utf-8", "replace").decode("utf-8")


def surplus(length: int, limit: int) -> slice:
    """Say which middle part of a sequence goes beyond a limit; head and tail get half each, empty is nothing."""
    if length <= limit:
        return slice(length, length)
    tail = limit // 2
    return slice(limit - tail, length - tail)
