"""What a simulated LLM makes of a prompt that it can parse."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Style = Literal["careless", "shortcut", "confused"]
STYLES: tuple[Style, ...] = ("careless", "shortcut", "confused")


@dataclass(frozen=True)
class Method:
    """One way to an answer: what is done, in words, and where it leads."""

    words: str
    answer: str


@dataclass(frozen=True)
class Reading:
    """A parsed prompt: the right method, and the wrong ones that LLMs of each style fall into.

    difficulty: about 0 (trivial) to 10 (as hard as the demo gets), from what the prompt shows.
    slips: a wrong method can lead to the right answer; then it is right, as it is in life.
    """

    family: str
    difficulty: float
    right: Method
    slips: Mapping[Style, Method]
