"""Choose again from a decision's record, and say whether the choice is the same.

The record holds what the policy read: the forecasts, the costs, the policy and what stood first for other reasons.
Where the prompt was recorded in full and the artifact is still on this disk, the forecast is made again too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from router.artifact import Artifact
from router.choice import forecast
from router.policy import Candidate, Policy, rank


@dataclass(frozen=True)
class Replay:
    """A decision as recorded and as chosen again.

    `forecast_difference` is the greatest between a recorded and a repeated P(correct); none where it was not repeated.
    """

    decision_id: str
    recorded: str
    replayed: str
    same_order: bool
    forecast_difference: float | None = None
    replayed_from_prompt: str | None = None

    @property
    def same(self) -> bool:
        return self.recorded == self.replayed and self.replayed_from_prompt in (None, self.recorded)

    def as_json(self) -> dict[str, object]:
        return {"object": "embedrouter.replay", "same": self.same, **asdict(self)}


def replay(row: Mapping[str, Any], artifact: Artifact | None = None) -> Replay:
    """Replay a row of `decisions`, made with `artifact`; ValueError where it was recorded before replays."""
    inputs = row["inputs"]
    if inputs is None:
        raise ValueError(f"decision {row['id']} was recorded before replays were possible")
    if inputs["policy"] is None:
        return Replay(row["id"], row["first_choice"], row["first_choice"], True)  # the client named the model
    shown = [candidate for candidate in row["candidates"] if "excluded" not in candidate]
    candidates = [Candidate(c["model"], c["p_correct"] or 0.0, c["expected_cost_usd"]) for c in shown]
    order = _order(candidates, inputs)
    made = Replay(row["id"], row["first_choice"], order[0], order == [c.model for c in candidates])
    if artifact is None or row["prompt"] is None:
        return made
    if inputs.get("was_forecast", True):
        p_correct = forecast(artifact, row["prompt"]).within(inputs["policy"].get("max_novelty")).p_correct
    else:
        p_correct = artifact.scorer.usual.tolist()
    again = [
        candidate if column is None else candidate._replace(p_correct=p_correct[column])
        for candidate, column in zip(candidates, inputs["columns"], strict=True)
    ]
    difference = max(abs(a.p_correct - c.p_correct) for a, c in zip(again, candidates, strict=True))
    return replace(made, forecast_difference=difference, replayed_from_prompt=_order(again, inputs)[0])


def _order(candidates: Sequence[Candidate], inputs: Mapping[str, Any]) -> list[str]:
    """The models in the order to ask them; those whose upstreams kept failing stand last, as they did."""
    known = {field.name for field in fields(Policy)}
    policy = Policy(**{name: value for name, value in inputs["policy"].items() if name in known})
    ranking = rank(candidates, policy, tuple(inputs.get("first", ())))
    names = [candidate.model for candidate in ranking.order]
    failing = set(inputs.get("failing", ()))
    return sorted(names, key=lambda name: name in failing)
