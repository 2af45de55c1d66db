"""What a log says, one row at a time, and the identity that makes the same row the same row again.

These are the values that importers and live evaluation hand to `data.store`; they know neither files nor SQL.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace


def prompt_sha256(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class NewQuestion:
    """A question as a log states it; `split` is None where the log does not say."""

    external_id: str
    prompt: str
    benchmark: str = ""
    subcategory: str | None = None
    gold: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class QuestionRef:
    """A stored question: its id in SQL and its identity."""

    id: int
    external_id: str
    prompt_sha256: str


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A stored model: its id in SQL and its own name, aliases resolved."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Observation:
    """One model on one question, as observed once. None is unknown.

    graded: whether the score alone was stated, and the label is but its rounding; ordinal: the how-manieth among
    identical observations of one source, from 0; `Repeats` counts.
    """

    question: QuestionRef
    model: ModelRef
    label: int
    score: float | None = None
    cost_usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    output_chars: int | None = None
    latency_s: float | None = None
    graded: bool = False
    ordinal: int = 0

    def key(self, source: str) -> str:
        """Digest what was observed and where it came from: 32 hexadecimal digits."""
        seen = (
            source,
            self.question.external_id,
            self.question.prompt_sha256,
            self.model.name,
            self.label,
            self.score,
            self.cost_usd,
            self.input_tokens,
            self.output_tokens,
            self.output_chars,
            self.latency_s,
            self.ordinal,
        )
        return hashlib.blake2b(json.dumps(seen).encode(), digest_size=16).hexdigest()


@dataclass
class Repeats:
    """Counts identical observations of one source, so that a genuine repeat is kept and a file read twice is not."""

    source: str
    seen: dict[str, int] = field(default_factory=dict)

    def number(self, observation: Observation) -> Observation:
        """Give an observation its ordinal among those identical to it so far."""
        key = observation.key(self.source)
        ordinal = self.seen.get(key, 0)
        self.seen[key] = ordinal + 1
        return replace(observation, ordinal=ordinal) if ordinal else observation


@dataclass(frozen=True)
class Recorded:
    """What became of some observations.

    n_repeated counts those that were stored already, n_resumed those of them that this very import had stored before
    it was interrupted; n_conflicting those new ones that contradict another observation of their model and question.
    """

    n_new: int = 0
    n_repeated: int = 0
    n_resumed: int = 0
    n_conflicting: int = 0

    def __add__(self, other: "Recorded") -> "Recorded":
        return Recorded(
            self.n_new + other.n_new,
            self.n_repeated + other.n_repeated,
            self.n_resumed + other.n_resumed,
            self.n_conflicting + other.n_conflicting,
        )
