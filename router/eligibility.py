"""Which models of the pool can take a request, and why each other one cannot."""

from collections.abc import Iterable, Mapping, Sequence

from router.decision import Option
from router.errors import InvalidRequestError, NoEligibleModelError, NoRoutableModelError, UpstreamError
from router.needs import WORDS
from router.observed import Observed
from router.policy import UNCOUNTED, UNPRICED
from router.pool import RETIRED, Pool, PoolEntry
from router.request import PromptRequest

OUT_OF_QUOTA = "out of quota"


def eligible(pool: Pool, request: PromptRequest, observed: Observed) -> tuple[list[PoolEntry], dict[str, str]]:
    """The models that can take a request, and why each other one that was asked for cannot.

    Those that can be routed to, and those without a forecast that may have to be asked all the same.
    NoEligibleModelError where none is left.
    """
    outright = _outright(pool, request)
    if not pool.routable and not outright:
        raise no_routable_model(pool)
    try:
        return _able(pool, [*pool.routable, *outright] if outright else pool.routable, request, observed)
    except NoEligibleModelError:
        if pool.routable or request.policy.name == "fixed":
            raise
        raise no_routable_model(pool) from None


def imaginable(pool: Pool, request: PromptRequest, observed: Observed) -> tuple[list[PoolEntry], dict[str, str]]:
    """The same where no model can be called: of those that the artifact knows and nobody retired, as if they could."""
    known = [entry for entry in pool.entries if entry.column is not None and entry.reason != RETIRED]
    if not known:
        raise no_routable_model(pool)
    return _able(pool, known, request, observed)


def no_routable_model(pool: Pool) -> NoRoutableModelError:
    return NoRoutableModelError("no model of the pool can be routed to; each one's reason is listed", pool.reasons)


def none_eligible(reasons: Mapping[str, str]) -> NoEligibleModelError:
    return NoEligibleModelError("no model can take this request; each one's reason is listed", reasons)


def waiting(options: Iterable[Option], observed: Observed) -> dict[str, str]:
    """Which options are out of quota, and for how long."""
    waits = {option.entry.name: observed.breakers.retry_after_s(option.entry.upstream) for option in options}
    said = "its upstream says"
    return {name: f"{OUT_OF_QUOTA} for another {s:.0f} s, {said}" for name, s in waits.items() if s is not None}


def _outright(pool: Pool, request: PromptRequest) -> list[PoolEntry]:
    """The models without a forecast that may be asked all the same: the default one, under `fixed` the candidates."""
    policy, named = request.policy, request.overrides.candidates or ()
    if policy.default_model is None and policy.name != "fixed":  # as nearly always
        return []
    names = (policy.default_model or "", *(named if policy.name == "fixed" else ()))
    found = (pool.by_name.get(name) for name in dict.fromkeys(names))
    return [entry for entry in found if entry is not None and entry.column is None and entry.is_callable]


def out_of_quota(entry: PoolEntry, wait_s: float) -> UpstreamError:
    """What an upstream would say that asked for a wait which is not over."""
    message = f"{entry.name} is out of quota, its upstream asked for {wait_s:.0f} more s"
    return UpstreamError("out_of_quota", message, status=429, retry_after_s=wait_s)


def obstacle(entry: PoolEntry, request: PromptRequest, observed: Observed) -> str | None:
    """Why a model cannot take a request; none where it can."""
    if entry.capabilities is not None and not request.needs <= entry.capabilities:
        lacking = sorted(need for need in request.needs if need not in entry.capabilities)
        return f"it cannot do what the request needs: {', '.join(WORDS[need] for need in lacking)}"
    output = request.max_output_tokens or 0
    if entry.max_output_tokens is not None and output > entry.max_output_tokens:
        return f"it writes at most {entry.max_output_tokens} tokens, and the request asks for up to {output}"
    tokens = request.input_tokens + output
    if entry.context_window is not None and tokens > entry.context_window:
        return f"about {tokens} tokens do not fit its context window of {entry.context_window}"
    refusals = observed.refusals
    if not refusals.has_any:  # as nearly always
        return None
    if (refused := refusals.refused(entry.upstream, request.body)) is not None:
        return f"its upstream refused `{refused}` before, where another took it"
    if refusals.refused(entry.upstream, {request.endpoint.path: None}) is not None:
        return f"its upstream has no {request.endpoint.path}"
    return None


def why_unknown(option: Option) -> str:
    """Why no cost can be expected of an option that has none: its price, or else the length of its answers."""
    return UNCOUNTED if option.entry.is_priced else UNPRICED


def over_limits(option: Option, request: PromptRequest, observed: Observed) -> str | None:
    """Why a model is too dear or too slow for a request; none where it is not, or where its latency is unknown."""
    limits, upstream = request.overrides, option.entry.upstream
    if limits.max_cost_usd is not None:
        cost_usd = option.expected_cost_usd
        if cost_usd is None:
            return f"{why_unknown(option)}, so it cannot be held to {limits.max_cost_usd:g} USD"
        if cost_usd > limits.max_cost_usd:
            return f"about {cost_usd:.6f} USD are more than {limits.max_cost_usd:g}"
    if limits.max_latency_s is not None and upstream is not None:
        seen_s = observed.latencies.mean_s(upstream)
        latency_s = option.expected_latency_s if seen_s is None else seen_s
        if latency_s is not None and latency_s > limits.max_latency_s:
            return f"its answers take about {latency_s:.1f} s, more than {limits.max_latency_s:g}"
    return None


def _able(
    pool: Pool, routable: Sequence[PoolEntry], request: PromptRequest, observed: Observed
) -> tuple[list[PoolEntry], dict[str, str]]:
    """Those of some models that the request is about and that can take it, and why others cannot."""
    wanted, reasons = _wanted(pool, routable, request)
    able: list[PoolEntry] = []
    for entry in wanted:
        reason = obstacle(entry, request, observed)
        if reason is None:
            able.append(entry)
        else:
            reasons[entry.name] = reason
    if not able:
        raise none_eligible(reasons)
    return able, reasons


def _wanted(
    pool: Pool, routable: Sequence[PoolEntry], request: PromptRequest
) -> tuple[Sequence[PoolEntry], dict[str, str]]:
    """Those of some models that the request is about, and why others that it names are not among them."""
    if request.overrides.candidates is None:
        return routable, {}
    names: set[str] = set()
    reasons: dict[str, str] = {}
    for name in request.overrides.candidates:
        if name not in pool.by_name:
            raise InvalidRequestError(f"candidate {name!r} is not in the pool", param="embedrouter.candidates")
        entry = pool.by_name[name]
        names.add(entry.name)
        if entry.reason is not None and entry not in routable:
            reasons[entry.name] = entry.reason
    return [entry for entry in routable if entry.name in names], reasons
