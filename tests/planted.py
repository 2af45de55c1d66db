"""Planted truth: logs whose P(correct) is known, with prompts whose words carry it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.log import CorrectnessLog

TOPICS = ("algebra", "botany", "chess", "dance")


@dataclass(frozen=True)
class Planted:
    """A log and the truth behind it; p: of shape (n_questions, n_models)."""

    log: CorrectnessLog
    p: NDArray[np.float64]


def planted_log(
    n_questions: int = 400, n_models: int = 6, *, observed: float = 1.0, strength: float = 2.0, seed: int = 0
) -> Planted:
    """Draw a log in which each model is good at its own topics and bad at the others.

    A prompt's words name its topic; model m's logit is strength on the topics it knows and -strength elsewhere, so a
    forecaster that reads prompts can know what model means cannot.
    """
    rng = np.random.default_rng(seed)
    topic = rng.integers(len(TOPICS), size=n_questions)
    skill = np.where(rng.random((n_models, len(TOPICS))) < 0.5, strength, -strength)
    skill[0], skill[1] = strength * np.array([1, 1, -1, -1]), strength * np.array([-1, -1, 1, 1])
    p = 1 / (1 + np.exp(-skill[:, topic].T))  # (N, M)
    label = (rng.random(p.shape) < p).astype(np.float64)
    seen = rng.random(p.shape) < observed
    fillers = rng.integers(1000, size=(n_questions, 6))
    questions = pd.DataFrame(
        {
            "key": np.arange(n_questions),
            "question_id": [f"q{i}" for i in range(n_questions)],
            "prompt": [
                f"{TOPICS[t]} of {TOPICS[t]}: " + " ".join(f"w{word}" for word in words)
                for t, words in zip(topic, fillers, strict=True)
            ],
            "benchmark": [TOPICS[t] for t in topic],
            "group": np.arange(n_questions),
            "split": rng.choice(["train", "val", "test"], size=n_questions, p=[0.6, 0.2, 0.2]),
        }
    )
    models = pd.DataFrame(
        {
            "model_name": [f"model-{m}" for m in range(n_models)],
            "usd_per_1m_input": np.arange(1, n_models + 1, dtype=np.float64),
            "usd_per_1m_output": np.arange(1, n_models + 1, dtype=np.float64) * 2,
        }
    )
    question, model = np.nonzero(seen)
    cells = pd.DataFrame(
        {
            "question": question,
            "model": model,
            "label": label[question, model],
            "n_observations": 1,
            "output_tokens": 100.0,
        }
    )
    return Planted(CorrectnessLog(questions, models, cells), p)
