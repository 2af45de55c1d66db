"""Which items of a known benchmark to label, so that a model's accuracy on all of them is forecast best."""

import numpy as np
from sqlalchemy import Engine

from data import queries
from data.errors import EmbedRouterError
from training.dataset import Correctness
from training.forecast_pool import near_names
from training.known_benchmark import MIN_MODELS, ability_elsewhere, facts_of, fit_benchmark, suggest_items
from training.suggest import SuggestedQuestion


def suggest_labels(
    engine: Engine, benchmark: str, n: int, *, model: str | None = None, seed: int = 0
) -> list[SuggestedQuestion]:
    """Choose n items of a logged benchmark whose labels would tell most of a model's accuracy on all of them.

    model: a name or an alias; what it has answered is not asked again. None is a model of which nothing is known.
    EmbedRouterError where no log holds the benchmark, or too few models answered its items.
    """
    name_of = {alias: row.name for row in queries.pool_models(engine) for alias in (row.name, *row.aliases)}
    model = name_of.get(model, model) if model else None
    log = queries.read_log(engine)
    data = Correctness.from_log(log)
    here = data.benchmarks == benchmark
    if not here.any():
        raise EmbedRouterError(
            f"the logs hold no benchmark {benchmark!r}: {near_names(benchmark, data.benchmarks.tolist())}; "
            "what no model has answered tells nothing of which items to label"
        )
    column = data.model_names.index(model) if model in data.model_names else None
    label = data.label if column is None else np.delete(data.label, column, axis=1)
    fitted = fit_benchmark(label[here], seed)
    if fitted is None:
        raise EmbedRouterError(
            f"fewer than {MIN_MODELS} models answered most of {benchmark}: label items drawn at random instead"
        )
    prior, rows = fitted.prior(), np.flatnonzero(here)
    if model is not None:
        others = [name for name in data.model_names if name != model]
        own = data.label[:, [column]] if column is not None else np.full((len(label), 1), np.nan, dtype=np.float32)
        ability = ability_elsewhere(np.hstack([label, own])[~here], data.benchmarks[~here])
        facts = facts_of([*others, model], ability)
        prior = fitted.prior_given(facts[:-1][fitted.columns], facts[-1])
    if column is not None:
        unanswered = ~data.observed[rows, column]
        items = fitted.items.rows(unanswered)
        rows = rows[unanswered]
    else:
        items = fitted.items
    if not len(rows):
        raise EmbedRouterError(f"{model} has answered every item of {benchmark}")
    keys = data.keys[rows[suggest_items(prior, items, n, seed)]].tolist()
    names, prompts = queries.question_names(engine).set_index("key"), queries.prompts_of(engine, keys)
    return [SuggestedQuestion(str(names["question_id"].loc[key]), benchmark, prompts[key]) for key in keys]
