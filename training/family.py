"""Families of models, told by their names: claude-3-5-sonnet and claude-3-opus, Qwen2-7B and Qwen2-72B."""

import re

_PREFIX = re.compile(r"[a-z]+-?(?:\d+(?:\.\d+)?)?")


def family_of(name: str) -> str:
    """Name a model's family: the first word of its name with the number after it, vendor's path and case aside."""
    own = name.lower().rsplit("/", 1)[-1].removeprefix("meta-")
    found = _PREFIX.match(own)
    return own if found is None else found[0].rstrip("-")
