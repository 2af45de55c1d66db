"""Which models can take a request, what each is worth for it, and in what order to ask them.

Plain functions from a pool, a request and the artifact's forecast to a decision; no waiting and no I/O.
"""

from collections.abc import Sequence

from router.artifact import Artifact
from router.decision import Decision, Option
from router.errors import InvalidRequestError, ModelNotFoundError, NoEligibleModelError, NoRoutableModelError
from router.policy import Candidate, rank
from router.pool import Pool, PoolEntry
from router.request import ChatRequest

EMPTY_TEXT = "no user text to encode: forecast of an empty prompt"


def forecast(artifact: Artifact, text: str) -> list[float]:
    """P(correct) of every model on one prompt, in the order of the artifact's columns."""
    column: list[float] = artifact.p_correct([text])[0].tolist()
    return column


def named_entry(pool: Pool, name: str) -> PoolEntry:
    """The entry that a client means by a name or an alias; it must be callable."""
    entry = pool.by_name.get(name)
    if entry is None:
        raise ModelNotFoundError(f"no model {name!r} in the pool; `GET /v1/models` lists them, `auto` is routed")
    if entry.upstream is None:
        raise ModelNotFoundError(f"model {entry.name!r} is in the pool but cannot be called: {entry.reason}")
    return entry


def eligible(pool: Pool, request: ChatRequest) -> tuple[list[PoolEntry], dict[str, str]]:
    """The routable models that can take this request, and why each other one that was asked for cannot."""
    if not pool.routable:
        raise NoRoutableModelError("no model of the pool can be routed to; each one's reason is listed", pool.reasons)
    wanted: Sequence[PoolEntry] = pool.routable
    reasons: dict[str, str] = {}
    if request.candidates is not None:
        names: set[str] = set()
        for name in request.candidates:
            if name not in pool.by_name:
                raise InvalidRequestError(f"candidate {name!r} is not in the pool", param="embedrouter.candidates")
            entry = pool.by_name[name]
            names.add(entry.name)
            if entry.reason is not None:
                reasons[entry.name] = entry.reason
        wanted = [entry for entry in pool.routable if entry.name in names]
    entries: list[PoolEntry] = []
    tokens = request.input_tokens + (request.max_output_tokens or 0)
    for entry in wanted:
        if entry.context_window is not None and tokens > entry.context_window:
            reasons[entry.name] = f"about {tokens} tokens do not fit its context window of {entry.context_window}"
        else:
            entries.append(entry)
    if not entries:
        raise NoEligibleModelError("no model can take this request; each one's reason is listed", reasons)
    return entries, reasons


def choose(
    request: ChatRequest,
    request_id: str,
    pool: Pool,
    entries: Sequence[PoolEntry],
    reasons: dict[str, str],
    p_correct: Sequence[float],
) -> Decision:
    """Rank the eligible entries under the request's policy."""
    options = {entry.name: option(entry, request, p_correct) for entry in entries}
    candidates = [Candidate(name, o.p_correct or 0.0, o.expected_cost_usd) for name, o in options.items()]
    ranking = rank(candidates, request.policy)
    others = [option(pool.by_name[name], request, p_correct, reason) for name, reason in reasons.items()]
    others += [option(pool.by_name[name], request, p_correct, reason) for name, reason in ranking.excluded.items()]
    notes = [note for note in (None if request.text.strip() else EMPTY_TEXT, ranking.note) if note]
    return Decision(
        request_id=request_id,
        artifact_id=None,
        policy=request.policy,
        options=tuple(
            Option(options[candidate.model].entry, candidate.p_correct, candidate.expected_cost_usd, propensity)
            for candidate, propensity in zip(ranking.order, ranking.propensities, strict=True)
        ),
        others=tuple(others),
        note="; ".join(notes) or None,
        input_tokens_estimate=request.input_tokens,
        streamed=request.stream,
    )


def explain(request: ChatRequest, request_id: str, artifact: Artifact, pool: Pool) -> dict[str, object]:
    """Say what a request to `auto` would be answered by, and why; it encodes, so run it off the event loop.

    Where no model can be called, every model that the artifact knows is ranked as if it could, and the choice is none.
    """
    p_correct = forecast(artifact, request.text)
    if pool.routable:
        entries, reasons = eligible(pool, request)
        out = [option(entry, request, p_correct, entry.reason) for entry in pool.entries if entry.reason is not None]
    else:
        entries, reasons = [entry for entry in pool.entries if entry.column is not None], {}
        out = [option(entry, request, p_correct, entry.reason) for entry in pool.entries if entry.column is None]
    decision = choose(request, request_id, pool, entries, reasons, p_correct)
    decision.artifact_id = artifact.id
    decision.others += tuple(o for o in out if o.entry.name not in reasons)
    return decision.explain()


def option(entry: PoolEntry, request: ChatRequest, p_correct: Sequence[float], excluded: str | None = None) -> Option:
    """What an entry is worth for a request."""
    cost_usd = entry.expected_cost_usd(request.input_tokens, request.max_output_tokens)
    return Option(entry, None if entry.column is None else p_correct[entry.column], cost_usd, 0.0, excluded)
