"""What the report calls things, and the sentences that sum a comparison up."""

from typing import Any

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


def signed(value: float, shape: str = ".4f") -> str:
    """A number with its sign, a real minus."""
    return f"{value:+{shape}}".replace("-", "\N{MINUS SIGN}")
