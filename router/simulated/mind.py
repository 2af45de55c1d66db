"""How a simulated LLM answers: right, or by its own wrong method where the question is beyond its skill.

Whether it slips is decided by a hash of its name and the prompt, so that asking twice gives one answer.
"""

import hashlib
import math

from router.simulated.pool import BY_NAME, SimulatedLlm
from router.simulated.reading import Method, Reading
from router.simulated.skills import read

_SHARPNESS = 1.0  # of the step from always right to always wrong, per unit of difficulty


def answer(model: str, prompt: str) -> str:
    """Answer a prompt as the simulated LLM of this name; any other name, or prompt, gets a text that says so."""
    llm = BY_NAME.get(model)
    reading = read(prompt) if llm else None
    if llm is None or reading is None:
        return (
            f"[simulated answer of {model}] No language model read this prompt of {len(prompt)} characters: "
            "this is EmbedRouter's simulator, and it only computes answers to the questions of its own demo."
        )
    return _say(llm, prompt, _method(llm, prompt, reading))


def slip_probability(llm: SimulatedLlm, reading: Reading) -> float:
    """How likely it errs: a logistic curve over how far the difficulty exceeds its skill."""
    return 1 / (1 + math.exp(-_SHARPNESS * (reading.difficulty - llm.skill(reading.family))))


def _method(llm: SimulatedLlm, prompt: str, reading: Reading) -> Method:
    slips = _draw(llm.name, prompt) < slip_probability(llm, reading)
    return reading.slips[llm.style] if slips else reading.right


def _draw(name: str, prompt: str) -> float:
    digest = hashlib.blake2b(f"{name}\0{prompt}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _say(llm: SimulatedLlm, prompt: str, method: Method) -> str:
    if llm.wordiness == 0:
        return f"Answer: {method.answer}"
    said = f"I {method.words}.\nAnswer: {method.answer}"
    if llm.wordiness == 1:
        return said
    beginning = " ".join(prompt.split()[:40])
    return f"Let me think about this first. I was asked: {beginning} ... Step by step, then, and a check.\n{said}"
