"""The pool of simulated LLMs: invented names, invented list prices, and skills that differ.

A skill is the difficulty at which an LLM slips every second time; ten is about as hard as the demo's questions get.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.simulated.reading import Style


@dataclass(frozen=True)
class SimulatedLlm:
    """What a simulated LLM costs, what it is good at, and how it errs.

    general: its skill in every family that `skills` does not name. wordiness: 0 says just the answer, 1 also how,
    2 thinks aloud first. Prices are USD per million tokens, invented for the demo.
    """

    name: str
    usd_per_1m_input: float
    usd_per_1m_output: float
    general: float
    style: Style
    wordiness: int
    skills: Mapping[str, float] = field(default_factory=dict)
    context_window: int = 32_768

    def skill(self, family: str) -> float:
        return self.skills.get(family, self.general)

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        return (input_tokens * self.usd_per_1m_input + output_tokens * self.usd_per_1m_output) / 1e6


POOL = (
    SimulatedLlm("sim-atlas-large", 5.00, 15.00, 7.0, "careless", 1, {"logic": 7.5, "lookup": 8.0}),
    SimulatedLlm("sim-atlas-small", 0.40, 1.20, 4.5, "careless", 1, {"lookup": 6.0}),
    SimulatedLlm(
        "sim-abacus-math", 0.60, 1.80, 2.5, "careless", 1,
        {"arithmetic": 9.5, "word problems": 9.0, "sequences": 8.5, "unit conversion": 5.0},
    ),
    SimulatedLlm(
        "sim-loop-coder", 0.90, 2.70, 3.0, "confused", 1,
        {"code tracing": 9.5, "lookup": 9.5, "arithmetic": 6.0, "logic": 5.0},
    ),
    SimulatedLlm(
        "sim-almanac-facts", 0.30, 0.90, 2.5, "shortcut", 0,
        {"dates": 9.5, "unit conversion": 9.0, "roman numerals": 7.0},
    ),
    SimulatedLlm(
        "sim-quill-text", 0.25, 0.75, 2.0, "confused", 0,
        {"string work": 9.5, "roman numerals": 9.0, "lookup": 6.0},
    ),
    SimulatedLlm(
        "sim-socrates-logic", 1.50, 6.00, 3.0, "careless", 2,
        {"logic": 10.0, "sequences": 7.0, "code tracing": 6.0, "word problems": 6.0},
    ),
    SimulatedLlm("sim-pocket-nano", 0.05, 0.15, 2.5, "shortcut", 0),
)  # fmt: skip
BY_NAME = {llm.name: llm for llm in POOL}
