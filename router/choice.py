"""What each model is worth for a request, and in what order to ask them.

Plain functions from a pool, a request and the artifact's forecast to a decision; no waiting and no I/O.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isnan
from typing import NamedTuple

import numpy as np

from router.abstention import Abstention
from router.artifact import Artifact
from router.decision import Decision, Option
from router.eligibility import (
    eligible,
    imaginable,
    no_routable_model,
    none_eligible,
    over_limits,
    waiting,
    why_unknown,
)
from router.errors import (
    EncoderError,
    InvalidRequestError,
    ModelNotFoundError,
    NoModelError,
    NoModelReliableError,
    NoRoutableModelError,
)
from router.observed import Observed
from router.policy import Candidate, rank
from router.pool import Pool, PoolEntry
from router.request import PromptRequest

logger = logging.getLogger(__name__)

EMPTY_TEXT = "no user text to encode"
UNKNOWN_TEXT = "nothing of the text is known from the logs"
LATE = "no forecast in time"
ENCODER_FAILED = "the encoder failed"
UNTRAINED = "nothing was trained and promoted yet"
PASSING = frozenset({LATE, ENCODER_FAILED})  # doubts that another time would not repeat
NOT_ASKED_FOR = "not among the candidates asked for"
DEFERRED = "its upstream keeps failing: asked after all others"
ALL_FAIL = "every candidate's upstream keeps failing or is out of quota"


class Forecast(NamedTuple):
    """P(correct) of every model on one prompt, in the order of the artifact's columns.

    `low` and `high` bound it with 90%; `novelty` says how far the prompt lies outside what the logs cover, 0 to 1.
    `output_tokens` are how long each one's answer should be, none where unknown; empty where nothing was forecast.
    `abstention` says how sure a choice has to be for a limit on errors; none where that was never calibrated.
    `usual` is P(correct) of a prompt of which nothing is known; beyond `max_novelty`, none being no limit, that is all
    that is known. `doubt` says why the forecast tells nothing of this prompt; none where it does.
    """

    p_correct: list[float]
    doubt: str | None = None
    output_tokens: tuple[float | None, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    novelty: float | None = None
    abstention: Abstention | None = None
    usual: tuple[float, ...] = ()
    max_novelty: float | None = None

    def within(self, max_novelty: float | None) -> "Forecast":
        """This forecast, or what is usual where the prompt is more novel than that, none being the artifact's limit."""
        most = self.max_novelty if max_novelty is None else max_novelty
        if self.doubt is not None or most is None or self.novelty is None or self.novelty <= most:
            return self
        doubt = f"outside what the logs cover, novelty {self.novelty:.3f} being above {most:.3f}"
        return Forecast(
            list(self.usual),
            doubt,
            novelty=self.novelty,
            abstention=self.abstention,
            usual=self.usual,
            max_novelty=self.max_novelty,
        )


def as_usual(artifact: Artifact, doubt: str) -> Forecast:
    """What stands in for the forecast of a prompt that has none."""
    return Forecast(artifact.scorer.usual.tolist(), doubt)


def forecasts(artifact: Artifact, texts: Sequence[str]) -> list[Forecast]:
    """Encode prompts and score them together, for as much as a choice needs: without bounds.

    An encoder that knows nothing of a text gives it the zero vector.
    """
    vectors = artifact.encoder.encode(texts)
    seen = artifact.expectation_of(vectors, texts)
    usual = artifact.scorer.usual.tolist()
    known = np.any(vectors, axis=1).tolist()
    p_correct, tokens, novelty = seen.p_correct.tolist(), seen.output_tokens.tolist(), seen.novelty.tolist()
    rows = zip(texts, known, p_correct, tokens, novelty, strict=True)
    return [_expected(artifact, usual, *row) for row in rows]


def _expected(
    artifact: Artifact,
    usual: list[float],
    text: str,
    is_known: bool,
    p_correct: list[float],
    tokens: list[float],
    novelty: float,
) -> Forecast:
    if not text.strip():
        return Forecast(usual, EMPTY_TEXT)
    if not is_known:
        return Forecast(usual, UNKNOWN_TEXT)
    return Forecast(
        p_correct,
        output_tokens=tuple([None if isnan(n) else n for n in tokens]),
        novelty=novelty,
        abstention=artifact.abstention,
        usual=tuple(usual),
        max_novelty=artifact.manifest.max_novelty,
    )


def forecast(artifact: Artifact, text: str) -> Forecast:
    """Encode a prompt and score it, with the bounds that an explanation shows; as usual where the encoder fails."""
    try:
        vectors = artifact.encoder.encode([text])
    except EncoderError as error:
        logger.warning("the encoder fails, a prompt is explained without its forecast: %s", error)
        return as_usual(artifact, ENCODER_FAILED)
    seen, tokens = artifact.forecast_of(vectors, [text])
    usual: list[float] = artifact.scorer.usual.tolist()
    row = seen.p_correct[0].tolist(), tokens[0].tolist(), float(seen.novelty[0])
    expected = _expected(artifact, usual, text, bool(vectors.any()), *row)
    if expected.doubt is not None:
        return expected
    return expected._replace(low=tuple(seen.low[0].tolist()), high=tuple(seen.high[0].tolist()))


def bounded(decision: Decision, seen: Forecast) -> Decision:
    """A decision with the bounds that its prompt's whole forecast has: what an explanation shows."""
    if not decision.was_forecast:
        return decision
    seen = seen.within(None if decision.policy is None else decision.policy.max_novelty)

    def with_bounds(option: Option) -> Option:
        column = option.entry.column
        if column is None or not seen.low:
            return option
        return option._replace(interval=(seen.low[column], seen.high[column]))

    options, others = (tuple(map(with_bounds, some)) for some in (decision.options, decision.others))
    return replace(decision, options=options, others=others)


def named_entry(pool: Pool, name: str) -> PoolEntry:
    """The entry that a client means by a name or an alias; it must be callable."""
    entry = pool.by_name.get(name)
    if entry is None:
        raise ModelNotFoundError(f"no model {name!r} in the pool; `GET /v1/models` lists them, `auto` is routed")
    if not entry.is_callable:
        raise ModelNotFoundError(f"model {entry.name!r} is in the pool but cannot be called: {entry.reason}")
    return entry


def choose(
    request: PromptRequest,
    request_id: str,
    pool: Pool,
    entries: Sequence[PoolEntry],
    reasons: dict[str, str],
    forecast: Forecast,
    observed: Observed | None = None,
) -> Decision:
    """Rank the eligible entries under the request's policy; those whose circuits are open stand last.

    Who is out of quota is left out, unless nobody else is left: then whoever asks them says how long to wait.
    NoEligibleModelError where all break the request's limits, NoModelReliableError where none is sure enough, and
    NoRoutableModelError where either leaves no makeshift either.
    """
    seen = observed or Observed()
    forecast = forecast.within(request.policy.max_novelty)
    options = {o.entry.name: o for o in _options(entries, request, forecast)}
    if request.overrides.has_limits:
        over = {name: why for name, o in options.items() if (why := over_limits(o, request, seen)) is not None}
        reasons = {**reasons, **over}
        options = {name: o for name, o in options.items() if name not in over}
    late = waiting(options.values(), seen) if seen.breakers.has_failures else {}
    try:
        left = _left_of(request, pool, forecast, options, late)
    except NoModelError as error:
        raise _out_of_models(request, pool, entries, reasons, error) from None
    reasons = {**reasons, **left.reasons}
    options, first = left.options, left.first
    failing: set[str] = set()
    if seen.breakers.has_failures:
        failing = {name for name, o in options.items() if seen.breakers.state(o.entry.upstream) == "open"}
    candidates = [_candidate(o) for o in options.values()]
    ranking = rank(candidates, request.policy, first)
    order = sorted(ranking.order, key=lambda candidate: candidate.model in failing) if failing else ranking.order
    out = [*reasons.items(), *ranking.excluded.items()]
    others = [option(pool.by_name[name], request, forecast, reason) for name, reason in out]
    deferred = None
    if failing:
        deferred = ALL_FAIL if len(failing) == len(options) else f"{DEFERRED}: {', '.join(sorted(failing))}"
    ordered = [options[candidate.model] for candidate in order]
    for place, propensity in enumerate(ranking.propensities):
        if propensity:  # as an option's is 0
            ordered[place] = ordered[place]._replace(propensity=propensity)
    return Decision(
        request_id=request_id,
        artifact_id=None,
        policy=request.policy,
        options=tuple(ordered),
        others=tuple(others),
        first=first,
        failing=tuple(sorted(failing)),
        note="; ".join([note for note in (left.note, ranking.note, deferred) if note]) or None,
        input_tokens_estimate=request.input_tokens,
        novelty=forecast.novelty,
        was_forecast=forecast.doubt not in PASSING,
        streamed=request.stream,
    )


def _candidate(option: Option) -> Candidate:
    name, p_correct, cost_usd = option.entry.name, option.p_correct or 0.0, option.expected_cost_usd
    if cost_usd is None:
        return Candidate(name, p_correct, None, why_unknown(option))
    return Candidate(name, p_correct, cost_usd)


@dataclass(frozen=True, slots=True)
class _Left:
    """Who is left to rank, why others are not, who stands before the ranking, and what the decision says of that."""

    options: dict[str, Option]
    reasons: dict[str, str]
    first: tuple[str, ...] = ()
    note: str | None = None


def _left_of(
    request: PromptRequest, pool: Pool, forecast: Forecast, options: dict[str, Option], late: Mapping[str, str]
) -> _Left:
    """Narrow down those that are not out of quota, or all where that leaves none; NoModelError where neither does."""
    if late:
        with suppress(NoModelError):
            ready = {name: o for name, o in options.items() if name not in late}
            left = _narrowed(request, pool, forecast, ready)
            return replace(left, reasons={**late, **left.reasons})
    return _narrowed(request, pool, forecast, options)


def _narrowed(request: PromptRequest, pool: Pool, forecast: Forecast, options: dict[str, Option]) -> _Left:
    """Keep who is sure enough and can be forecast, or is asked for all the same; NoModelError where none is left."""
    if not options:
        raise none_eligible({})
    left = _Left(options, {})
    if request.policy.error_limit is not None:
        left = _sure_enough(request, pool, request.policy.error_limit, forecast, options)
    first, note = (left.first, left.note) if left.first else _first(request, pool, forecast, left.options)
    unasked = {n: o.entry.reason or "" for n, o in left.options.items() if o.entry.column is None and n not in first}
    kept = {name: o for name, o in left.options.items() if name not in unasked} if unasked else left.options
    reasons = {**left.reasons, **unasked}
    if not kept:
        raise none_eligible(reasons)
    return _Left(kept, reasons, first, note)


def _out_of_models(
    request: PromptRequest,
    pool: Pool,
    entries: Sequence[PoolEntry],
    reasons: Mapping[str, str],
    error: NoModelError,
) -> NoModelError:
    """What is wrong where no model is left: the pool, where it has none but makeshifts that nobody asked for."""
    is_makeshift = not pool.routable and any(entry.is_callable for entry in entries)
    if is_makeshift and request.policy.name != "fixed":
        return no_routable_model(pool)
    error.reasons = {**reasons, **error.reasons}
    return error


def _sure_enough(
    request: PromptRequest, pool: Pool, max_error: float, forecast: Forecast, options: dict[str, Option]
) -> _Left:
    """Keep who is sure enough for a limit on errors; without any, the default model alone, or NoModelReliableError."""
    least: float | None = None
    if forecast.doubt is not None:
        why = forecast.doubt
    elif forecast.abstention is None:
        why = "the artifact in use was not calibrated for limits on errors: `embedrouter train` makes one that is"
    elif (least := forecast.abstention.threshold(max_error)) is None:
        why = f"no P(correct) was shown to keep errors to {max_error:g}"
    else:
        why = f"errors of at most {max_error:g} need P(correct) {least:.4f}"
    sure = {name: o for name, o in options.items() if least is not None and (o.p_correct or 0.0) >= least}
    reasons = {name: _unsure(o, least, why) for name, o in options.items() if name not in sure}
    if sure:
        return _Left(sure, reasons)
    default = pool.by_name.get(request.policy.default_model or "")
    if request.policy.abstain == "default_model" and default is not None and default.name in options:
        del reasons[default.name]
        kept = {default.name: options[default.name]}
        return _Left(kept, reasons, (default.name,), f"abstained, {why}: the default model")
    raise NoModelReliableError(f"no model is reliable enough: {why}; each one's reason is listed", reasons)


def _unsure(option: Option, least: float | None, why: str) -> str:
    return why if least is None else f"P(correct) {option.p_correct or 0.0:.4f} is below {least:.4f}"


def _first(
    request: PromptRequest, pool: Pool, forecast: Forecast, options: dict[str, Option]
) -> tuple[tuple[str, ...], str | None]:
    """The models to ask before the policy's order, and what the decision says of it."""
    policy = request.policy
    if policy.name == "fixed":
        wanted = request.overrides.candidates or (policy.default_model and (policy.default_model,)) or ()
        if not wanted:
            message = "policy fixed needs a model: configure `policy.default_model`, or send `embedrouter.candidates`"
            raise InvalidRequestError(message, param="embedrouter.policy")
    elif forecast.doubt is None:
        return (), None
    elif policy.default_model is None:
        return (), f"{forecast.doubt}: by each model's usual P(correct), there being no `policy.default_model`"
    else:
        wanted = (policy.default_model,)
    names = tuple(pool.by_name[name].name if name in pool.by_name else name for name in wanted)
    if names[0] in options:
        return names, forecast.doubt and f"{forecast.doubt}: the default model"
    note = f"the default model {names[0]} cannot take it"
    return names, f"{forecast.doubt}: {note}" if forecast.doubt else note


def explain(
    request: PromptRequest, request_id: str, artifact: Artifact, pool: Pool, observed: Observed | None = None
) -> dict[str, object]:
    """Say what a request to `auto` would be answered by, and why; it encodes, so run it off the event loop.

    Where no model can be called, those that the artifact knows and nobody retired are ranked as if they could, and
    the choice is none.
    """
    known = observed or Observed()
    seen = forecast(artifact, request.text).within(request.policy.max_novelty)
    try:
        decision = choose(request, request_id, pool, *eligible(pool, request, known), seen, known)
    except NoRoutableModelError:
        decision = choose(request, request_id, pool, *imaginable(pool, request, known), seen, known)
    decision.artifact_id = artifact.id
    decision.others += tuple(option(e, request, seen, reason) for e, reason in unsaid(pool, decision))
    return {**decision.explain(), "encoder": artifact.manifest.encoder_fingerprint}


def unsaid(pool: Pool, decision: Decision) -> list[tuple[PoolEntry, str]]:
    """The models that a decision says nothing of, and why: they cannot be routed to, or were not asked for."""
    said = {o.entry.name for o in (*decision.options, *decision.others)}
    return [(entry, entry.reason or NOT_ASKED_FOR) for entry in pool.entries if entry.name not in said]


def option(entry: PoolEntry, request: PromptRequest, forecast: Forecast, excluded: str | None = None) -> Option:
    """What an entry is worth for a request."""
    (worth,) = _options((entry,), request, forecast)
    return worth._replace(excluded=excluded)


def _options(entries: Sequence[PoolEntry], request: PromptRequest, forecast: Forecast) -> list[Option]:
    """What each entry is worth for a request; every request looks at every model, so nothing is looked up twice."""
    p_correct, lengths, low, high = forecast.p_correct, forecast.output_tokens, forecast.low, forecast.high
    n_in, limit = request.input_tokens, request.max_output_tokens
    options: list[Option] = []
    for entry in entries:
        column = entry.column
        p = length = interval = None
        if column is not None:
            p = p_correct[column]
            length = lengths[column] if lengths else None
            interval = (low[column], high[column]) if low else None
        tokens = entry.expected_tokens(limit, length)
        cost_usd = None if tokens is None else entry.cost_usd(n_in, tokens)
        options.append(Option(entry, p, cost_usd, 0.0, None, tokens, interval))
    return options
