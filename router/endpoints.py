"""The families of OpenAI's endpoints, as far as they differ on the wire."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One family. `path` follows the base URL, here and at the upstream; `answer` is the list that an answer holds.

    `typed`: its stream is of typed events that end in one of them, not of chunks that end in `[DONE]`.
    `routed`: `auto` may choose its model.
    """

    name: str
    path: str
    answer: str
    typed: bool = False
    routed: bool = True


CHAT = Endpoint("chat", "/chat/completions", "choices")
COMPLETIONS = Endpoint("completions", "/completions", "choices")
RESPONSES = Endpoint("responses", "/responses", "output", typed=True)
# vectors of two models cannot be compared, so no other may stand in for the one that is named
EMBEDDINGS = Endpoint("embeddings", "/embeddings", "data", routed=False)
