"""A decision: one request, what could have answered it, what was chosen, and what became of it.

It grows while the request runs and is then written to SQL; the same value explains itself on /v1/route. It carries the
prompt, but writes it only where the configuration says so.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Literal, NamedTuple

from data.observations import prompt_sha256
from router.errors import Attempt, UpstreamError
from router.flips import Flip, flips
from router.ids import new_id
from router.policy import Candidate, Policy
from router.pool import PoolEntry

NAMED = "named"
CLIENT_CLOSED = "client_closed"
MOST_TOKENS = 2**31 - 1  # what SQL can hold; an upstream that counts more, or less than 0, is not believed


class Option(NamedTuple):
    """A model that was scored for a request; none is unknown.

    `excluded` says why it could not be chosen; `propensity` is then 0. Every request makes one for every model: a tuple
    takes a quarter of the time that a frozen dataclass does.
    """

    entry: PoolEntry
    p_correct: float | None
    expected_cost_usd: float | None
    propensity: float
    excluded: str | None = None
    expected_output_tokens: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def expected_latency_s(self) -> float | None:
        """How long its answer should take; none where its length or the model's pace is unknown."""
        tokens = self.expected_output_tokens
        return None if tokens is None else self.entry.latency_s(tokens)

    def as_json(self) -> dict[str, object]:
        shown: dict[str, object] = {
            "model": self.entry.name,
            "p_correct": self.p_correct,
            "expected_cost_usd": self.expected_cost_usd,
            "propensity": self.propensity,
        }
        return shown if self.excluded is None else {**shown, "excluded": self.excluded}


@dataclass(slots=True)
class Decision:
    """One decision. `options` stand in the order to ask them; `others` could not be chosen for this request.

    `policy` is none where the client named the model, and then nothing was scored. `first` names what stands before the
    policy's order, `failing` what stands behind it. Where the prompt could not be forecast at that time, `was_forecast`
    is false and every P(correct) the usual one. `began` says whether the client has its status and headers, as those of
    a stream have whose answer is long in coming; `asked_at` when the breakers saw who answered being asked.
    """

    request_id: str
    artifact_id: str | None
    policy: Policy | None
    options: tuple[Option, ...]
    others: tuple[Option, ...] = ()
    first: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    note: str | None = None
    input_tokens_estimate: int = 0
    novelty: float | None = None
    was_forecast: bool = True
    streamed: bool = False
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=perf_counter)
    attempts: list[Attempt] = field(default_factory=list)
    answered: Option | None = None
    status: int = 0
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    overhead_s: float = 0.0
    latency_s: float = 0.0
    route_s: float = 0.0
    ttft_s: float | None = None
    prompt: str = field(default="", repr=False)
    began: bool = False
    asked_at: float = 0.0

    @property
    def policy_name(self) -> str:
        return NAMED if self.policy is None else self.policy.name

    @property
    def cost_usd(self) -> float | None:
        """What the answer cost by its own count of tokens; none where a count or a price is unknown."""
        if self.answered is None or self.input_tokens is None or self.output_tokens is None:
            return None
        return self.answered.entry.cost_usd(self.input_tokens, self.output_tokens)

    def count(self, answer: dict[str, object]) -> None:
        """Note the tokens that an answer, or a chunk of one, says it took, and when the first chunk came."""
        if self.streamed and self.ttft_s is None:
            self.ttft_s = perf_counter() - self.started
        response = answer.get("response")
        usage = (response if isinstance(response, dict) else answer).get("usage")
        if isinstance(usage, dict):
            for name, source in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
                tokens = usage.get(source, usage.get(name))
                if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens <= MOST_TOKENS:
                    setattr(self, name, tokens)
            if self.output_tokens is None and usage.get("total_tokens") == self.input_tokens:  # as of embeddings
                self.output_tokens = 0 if self.input_tokens is not None else None

    def measure(self) -> None:
        """Note the time so far: all of it, and the part that was not spent in attempts."""
        self.latency_s = perf_counter() - self.started
        self.overhead_s = max(0.0, self.latency_s - sum([attempt.latency_s for attempt in self.attempts]))

    def fail(self, failure: UpstreamError) -> None:
        """Note that the last attempt's answer broke off after it had begun."""
        self.attempts[-1] = self.attempts[-1]._replace(error=failure.code)

    def interrupt(self, error: str) -> None:
        """Note why the attempt that was going on had no end, where one was."""
        if self.attempts and self.attempts[-1].error == CLIENT_CLOSED:
            self.attempts[-1] = self.attempts[-1]._replace(error=error)

    def close(self, status: int, error: str | None = None) -> None:
        """Note what the client saw in the end."""
        self.status, self.error = status, error
        self.latency_s = perf_counter() - self.started

    def status_seen(self, status: int) -> int:
        """The status that a client sees of an error: 200 where its stream began before, and the error is an event."""
        return 200 if self.began else status

    def headers(self) -> dict[str, str]:
        """What an answer's headers say of its decision; how it went, only where that is known."""
        headers = {"x-embedrouter-decision-id": self.id, "x-embedrouter-policy": self.policy_name}
        if self.answered is not None or self.status or not self.began:
            headers["x-embedrouter-attempts"] = str(len(self.attempts))
            headers["x-embedrouter-overhead-ms"] = f"{self.overhead_s * 1e3:.3f}"
        if self.artifact_id is not None:
            headers["x-embedrouter-artifact"] = self.artifact_id
        if self.answered is not None:
            headers["x-embedrouter-model"] = self.answered.entry.name
            if self.answered.entry.upstream is not None:
                headers["x-embedrouter-upstream-model"] = self.answered.entry.upstream.model
            if self.answered.p_correct is not None:
                headers["x-embedrouter-p-correct"] = f"{self.answered.p_correct:.4f}"
        return headers

    def as_row(self, prompts: Literal["off", "hashed", "full"] = "off") -> dict[str, object]:
        """This decision as a row of the table `decisions`, with as much of its prompt as `prompts` says."""
        prompt = "" if prompts == "off" else _storable(self.prompt)
        settings: dict[str, object] = {} if self.policy is None else dict(self.policy.settings())
        if self.note is not None:
            settings["note"] = self.note
        return {
            "id": self.id,
            "request_id": self.request_id,
            "artifact_id": self.artifact_id,
            "policy": self.policy_name,
            "policy_settings": settings,
            "candidates": [option.as_json() for option in (*self.options, *self.others)],
            "first_choice": self.options[0].entry.name,
            "answered_by": None if self.answered is None else self.answered.entry.name,
            "p_correct": None if self.answered is None else self.answered.p_correct,
            "attempts": [attempt.as_json() for attempt in self.attempts],
            "status": self.status,
            "error": self.error,
            "streamed": self.streamed,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": self.cost_usd,
            "overhead_s": self.overhead_s,
            "latency_s": self.latency_s,
            "route_s": self.route_s,
            "ttft_s": self.ttft_s,
            "inputs": {
                "policy": None if self.policy is None else self.policy.as_json(),
                "first": list(self.first),
                "failing": list(self.failing),
                "was_forecast": self.was_forecast,
                "columns": [option.entry.column for option in self.options],
                "input_tokens_estimate": self.input_tokens_estimate,
                "aliases": [] if self.answered is None else list(self.answered.entry.aliases),
            },
            "prompt": prompt if prompts == "full" else None,
            "prompt_sha256": prompt_sha256(prompt) if prompt else None,
            "created_at": self.created_at,
        }

    def explain(self) -> dict[str, object]:
        """This decision for people: what each model was worth, and why those out are out."""
        choice = self.options[0] if self.options and self.options[0].entry.upstream is not None else None
        return {
            "object": "embedrouter.decision",
            "model": choice.entry.name if choice else None,
            "p_correct": choice.p_correct if choice else None,
            "policy": {"name": self.policy_name, **(self.policy.settings() if self.policy else {})},
            "artifact": self.artifact_id,
            "input_tokens_estimate": self.input_tokens_estimate,
            "novelty": self.novelty,
            "note": self.note,
            "candidates": [_explained(option) for option in self.options],
            "excluded": [_explained(option) for option in self.others],
            "would_flip": [flip.as_json() for flip in self._flips()],
        }

    def _flips(self) -> list[Flip]:
        """The smallest changes that would put another model first."""
        if self.policy is None:
            return []
        behind = [option for option in self.options if option.entry.name not in self.failing]
        candidates = [Candidate(o.entry.name, o.p_correct or 0.0, o.expected_cost_usd) for o in behind]
        return flips(candidates, self.policy, self.first)


def _storable(text: str) -> str:
    """Without what no database takes: halves of surrogate pairs and zeros."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _explained(option: Option) -> dict[str, object]:
    entry = option.entry
    shown = option.as_json()
    reason = shown.pop("excluded", None) or entry.reason
    tokens = option.expected_output_tokens
    shown |= {
        "p_correct_ci90": None if option.interval is None else list(option.interval),
        "expected_output_tokens": None if tokens is None else round(tokens, 1),
        "output_tokens_basis": None if tokens is None else entry.tokens_basis,
        "expected_latency_s": option.expected_latency_s,
    }
    shown |= {"usd_per_1m_input": entry.usd_per_1m_input, "usd_per_1m_output": entry.usd_per_1m_output}
    return shown if reason is None else {**shown, "reason": reason}
