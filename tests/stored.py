"""Planted logs in SQL: what an import would have put there, without files."""

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from data.log import CorrectnessLog
from data.observations import NewQuestion, Observation, Repeats
from data.splits import group_questions
from data.store import add_questions, ensure_models, record_outcomes, set_model


def store_log(engine: Engine, log: CorrectnessLog, source: str) -> None:
    """Store a log's questions, with the splits that it states, and its cells as one source's observations."""
    columns = [log.questions[name].tolist() for name in ("question_id", "prompt", "benchmark", "split")]
    stated = [
        NewQuestion(id_, prompt, benchmark, split=split) for id_, prompt, benchmark, split in zip(*columns, strict=True)
    ]
    questions = add_questions(engine, stated)
    group_questions(engine, "each")
    names = log.models["model_name"].tolist()
    models = ensure_models(engine, names)
    for name, price, output_price in zip(
        names, log.models["usd_per_1m_input"].tolist(), log.models["usd_per_1m_output"].tolist(), strict=True
    ):
        set_model(engine, name, usd_per_1m_input=price, usd_per_1m_output=output_price)
    repeats = Repeats(source)
    cells = zip(*(log.cells[name].tolist() for name in ("question", "model", "label", "output_tokens")), strict=True)
    observations = [
        Observation(questions[question], models[names[model]], int(label), output_tokens=int(tokens))
        for question, model, label, tokens in cells
    ]
    record_outcomes(engine, source, [repeats.number(observation) for observation in observations])


def flip(log: CorrectnessLog, share: float, seed: int = 0) -> CorrectnessLog:
    """The same log with a random share of its labels turned round."""
    turned = np.random.default_rng(seed).random(len(log.cells)) < share
    return relabel(log, np.where(turned, 1 - log.cells["label"], log.cells["label"]))


def relabel(log: CorrectnessLog, label: NDArray[np.float64]) -> CorrectnessLog:
    return CorrectnessLog(log.questions, log.models, log.cells.assign(label=label))


def pick(log: CorrectnessLog, questions: NDArray[np.int64]) -> CorrectnessLog:
    """The part of a log on some of its questions, by ascending position."""
    cells = log.cells[np.isin(log.cells["question"].to_numpy(), questions)]
    cells = cells.assign(question=np.searchsorted(questions, cells["question"].to_numpy()))
    return CorrectnessLog(log.questions.iloc[questions].reset_index(drop=True), log.models, cells)
