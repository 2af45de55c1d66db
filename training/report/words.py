"""What the report calls things, and the sentences that sum a comparison up."""

from collections.abc import Sequence
from typing import Any

from markupsafe import escape

from training.lineage import Families, state_p_value
from training.probe import Probe
from training.promises import Ece, Promise

METHOD_NAMES = {
    "embedrouter": "EmbedRouter",
    "model_mean": "model mean",
    "benchmark_mean": "model × benchmark mean",
    "knn": "kNN",
    "embedllm_mf": "EmbedLLM's procedure",
}
METHOD_NOTES = {
    "embedrouter": "this artifact: embeddings learned from outcomes and text, calibrated by cross-fitting",
    "model_mean": "forecasts each model's accuracy on the questions learned from, whatever the prompt",
    "benchmark_mean": "forecasts each model's accuracy on the question's benchmark; the only method told its name",
    "knn": "averages each model's outcomes on the nearest questions learned from (EmbedLLM's baseline)",
    "embedllm_mf": "the published matrix factorization, neither stopped early nor calibrated",
}
TOLD_THE_BENCHMARK = "benchmark_mean"


def summarize(comparison: dict[str, Any]) -> list[str]:
    """Say in plain sentences what the figures mean; nothing of what they lack."""
    methods = comparison.get("methods") or {}
    ours = methods.get(comparison.get("default"))
    if not ours:
        return ["This artifact holds no comparison: it was listed without figures."]
    return [
        sentence
        for sentence in (_forecasting(comparison, methods, ours), _routing(comparison, ours), _cost(ours))
        if sentence
    ]


def describe_data(comparison: dict[str, Any]) -> str:
    """Say what the artifact was fitted on and what was held out; nothing where that is not known."""
    dataset = comparison.get("dataset")
    if not dataset:
        return ""
    protocol = comparison.get("protocol") or {}
    n_near_test = protocol.get("n_near_test", 0)
    n_questions = dataset["n_questions"] - dataset["n_test_questions"] - protocol.get("n_left_out", 0) - n_near_test
    n_cells = dataset["n_cells"] - dataset["n_test_cells"] - protocol.get("n_near_test_cells", 0)
    text = (
        f"fitted on {n_cells:,} outcomes of {dataset['n_models']:,} models on "
        f"{n_questions:,} questions, with {dataset['n_test_cells']:,} outcomes on {dataset['n_test_questions']:,} test "
        "questions held out"
    )
    if n_near_test:
        text += f"; {n_near_test:,} train and val questions were left out as near-duplicates of test questions"
    measured_on = comparison.get("measured_on")
    return f"{text}; models were onboarded since, and the comparison is that of {measured_on}" if measured_on else text


def _forecasting(comparison: dict[str, Any], methods: dict[str, Any], ours: dict[str, Any]) -> str | None:
    rivals = {
        name: method
        for name, method in methods.items()
        if name not in (comparison["default"], TOLD_THE_BENCHMARK) and method.get("nll") is not None
    }
    if not rivals or ours.get("nll") is None:
        return None
    best = min(rivals, key=lambda name: rivals[name]["nll"])
    difference = ours["nll"] - rivals[best]["nll"]
    share = abs(difference) / rivals[best]["nll"]
    bounds = (rivals[best].get("default_minus_this_ci95") or {}).get("nll")
    certainty = ""
    if bounds:
        sure = bounds[1] < 0 if difference < 0 else bounds[0] > 0
        certainty = (
            f"; the difference is {signed(difference)}, with a 95% interval from {signed(bounds[0])} to "
            + signed(bounds[1])
            + ("" if sure else ", so it could be chance")
        )
    direction = "lower (better)" if difference < 0 else "higher (worse)"
    return (
        f"Forecasting: the log loss of its P(correct) on held-out questions is {ours['nll']:.4f}, {share:.1%} "
        f"{direction} than that of {METHOD_NAMES.get(best, best)}, the best baseline that does not read the "
        f"benchmark's name{certainty}."
    )


def _routing(comparison: dict[str, Any], ours: dict[str, Any]) -> str | None:
    references = comparison.get("references") or {}
    routed, single, oracle = ours.get("routing_accuracy"), references.get("best_single"), references.get("oracle")
    if routed is None or single is None or oracle is None:
        return None
    points = (routed - single) * 100
    name = comparison.get("best_single_model") or "one model"
    if oracle <= single:
        gap = "; no router could do better"
    else:
        closed = f"{(routed - single) / (oracle - single):.0%}" if routed > single else "none"
        gap = (
            f". An oracle that always picks a model that is right, where there is one, reaches {oracle:.1%}: "
            f"{closed} of that gap is closed"
        )
    return (
        f"Routing: sending each question to the model most likely to be right answers {routed:.1%} correctly; {name}, "
        f"the best single model on the train questions, answers {single:.1%} ({signed(points, '.1f')} points){gap}."
    )


def _cost(ours: dict[str, Any]) -> str | None:
    ratio = (ours.get("routing") or {}).get("cost_at_best_single")
    if ratio is None:
        return None
    if ratio >= 1:
        return "Cost: it does not reach the best priced single model's quality for less money."
    return f"Cost: it reaches the best priced single model's quality for {ratio:.0%} of that model's cost."


def sum_up_promises(promises: Sequence[Promise]) -> str:
    """Say whether the models that policies choose are right as often as promised."""
    kept = sum(one.kept for one in promises)
    worst = max(promises, key=lambda one: one.short)
    where = "the most likely model" if worst.threshold is None else f"min_p_correct {worst.threshold:g}"
    short = (
        f"at {where} they were right {worst.short * 100:.1f} points less often than promised ({worst.n:,} questions)"
        if worst.short > 0
        else "nowhere were they right less often than promised"
    )
    return f"{kept} of {len(promises)} promises were kept within 2 points beyond what chance explains; {short}."


def sum_up_errors(errors: Sequence[Ece]) -> str:
    """Say how the calibration errors compare with what perfect calibration shows."""
    everything = errors[0]
    text = (
        f"Over all {everything.n:,} outcomes the error is {everything.ece:.4f}; a perfectly calibrated forecaster "
        f"would show {everything.perfect:.4f} on the same questions, since finite outcomes never agree exactly."
    )
    models = [one for one in errors if one.name.startswith("model ")]
    if models:
        above = sum(one.ece > one.perfect_95 for one in models)
        text += (
            f" Of {len(models)} models with enough outcomes, {above} lie above what 95% of perfect forecasters would "
            f"show; chance alone would put {0.05 * len(models):.1f} there."
        )
    return text


def sum_up_probe(probe: Probe) -> list[str]:
    """Say what the embeddings know, each finding with its p-value and number of models."""
    return [text for text in (_families(probe), _sizes(probe), _twins(probe), _stability(probe)) if text]


def _families(probe: Probe) -> str | None:
    if probe.families is None:
        return None
    text = f"Families: {_nearness(probe.families)}"
    if probe.families_without_twins is not None:
        text += f" With one model of each near-duplicate pair left out: {_nearness(probe.families_without_twins)}"
    return text


def _nearness(families: Families) -> str:
    return (
        f"models of one family lie at {families.ratio:.2f} of the usual distance, where shuffled names give "
        f"{families.expected:.2f} ({state_p_value(families.p_value)}, n = {families.n_models} models, "
        f"{families.n_pairs} pairs)."
    )


def _sizes(probe: Probe) -> str | None:
    sizes = probe.sizes
    if sizes is None:
        return None
    if sizes.explained > 0:
        explained = f"the other directions forecast {sizes.explained:.0%} of its variance for models left out"
    else:
        explained = "the other directions forecast it no better than its mean"
    return (
        f"Size: the logarithm of the parameters that names state goes with a model's level, r = "
        f"{signed(sizes.level_correlation, '.2f')} ({state_p_value(sizes.level_p_value)}); {explained} "
        f"({state_p_value(sizes.explained_p_value)}, n = {sizes.n_models} models)."
    )


def _twins(probe: Probe) -> str | None:
    if not probe.pairs:
        return None
    n = sum(pair.is_twin for pair in probe.pairs)
    if not n:
        return "Near-duplicates: no pair of models errs alike far more than the others do."
    many = "one pair of models errs" if n == 1 else f"{n} pairs of models err"
    return f"Near-duplicates: {many} alike far more than others, and disagree less than equally able models would."


def _stability(probe: Probe) -> str | None:
    one = probe.stability
    if one is None:
        return None
    return (
        f"Stability: fitted with another seed and rotated onto the first, embeddings correlate at "
        f"{one.embedding_correlation:.3f} ({one.by_chance:.2f} with models shuffled), distances between models at "
        f"{one.distance_correlation:.3f}; P(correct) of logged questions moves by {one.p_difference * 100:.1f} points "
        f"on average (n = {one.n_models} models, {one.n_questions:,} questions)."
    )


def plain(text: str) -> str:
    """A name as text in a chart: without markup, and without plotly's own placeholders."""
    return str(escape(text)).replace("%{", "%&#123;")


def signed(value: float, shape: str = ".4f") -> str:
    """A number with its sign, a real minus."""
    return f"{value:+{shape}}".replace("-", "\N{MINUS SIGN}")
