"""The pool: which models there are, what is known of each, and why one cannot be routed to.

Joins what the configuration says (it wins), what SQL says and which models the artifact has a column for, by name or
alias, into one immutable value. It does no I/O: whoever watches the champion builds a new pool and swaps it in.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import TYPE_CHECKING, Literal

from data.model_names import AUTO as AUTO
from data.model_names import name_fault, url_fault
from router.errors import ConfigError
from router.parameters import AS_IT_COMES, ParameterRules
from router.settings import PoolSection

if TYPE_CHECKING:
    from data.queries import ModelRow
    from router.artifact import Artifact

NO_UPSTREAM = "no upstream"
RETIRED = "retired"
ASSUMED_OUTPUT_TOKENS = 256.0  # where no model's answers were ever counted; the same for every model


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a model is called: an OpenAI-compatible base URL, a key, and the model's id there."""

    base_url: str
    model: str
    key: str | None = None

    def __repr__(self) -> str:
        return f"Upstream({self.base_url!r}, {self.model!r})"


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """One model. `reason` says why it is never chosen; none where it can be. `column` is its place in the artifact.

    `expected_output_tokens` is its usual answer, none where unknown; `tokens_basis` says what that and a prompt's own
    forecast stand on: counts, estimates from characters, or an assumption. `first_token_s` and `s_per_token` are its
    pace, none where no answer was timed. `capabilities` is all that it can do besides text; none is unknown, and then
    it may be asked for anything.
    """

    name: str
    aliases: tuple[str, ...] = ()
    upstream: Upstream | None = None
    usd_per_1m_input: float | None = None
    usd_per_1m_output: float | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    expected_output_tokens: float | None = ASSUMED_OUTPUT_TOKENS
    column: int | None = None
    reason: str | None = None
    capabilities: frozenset[str] | None = None
    parameters: ParameterRules = AS_IT_COMES
    tokens_basis: Literal["counted", "estimated", "assumed"] = "assumed"
    first_token_s: float | None = None
    s_per_token: float | None = None

    @property
    def is_callable(self) -> bool:
        """Whether it can be asked by name, be there a forecast for it or not."""
        return self.upstream is not None and self.reason != RETIRED

    @property
    def is_priced(self) -> bool:
        """Whether what it costs to answer is known."""
        return self.usd_per_1m_input is not None and self.usd_per_1m_output is not None

    def cost_usd(self, input_tokens: float, output_tokens: float) -> float | None:
        """What that many tokens cost; none where a price is unknown."""
        output_price = self.usd_per_1m_output if output_tokens else 0.0  # what writes nothing need not have one
        if self.usd_per_1m_input is None or output_price is None:
            return None
        return (input_tokens * self.usd_per_1m_input + output_tokens * output_price) / 1e6

    def expected_tokens(self, max_output_tokens: int | None, forecast: float | None = None) -> float | None:
        """How long an answer should be: as forecast for the prompt, else as usual, cut at the limits that hold."""
        tokens = self.expected_output_tokens if forecast is None else forecast
        if tokens is None:
            return None
        if max_output_tokens is not None and max_output_tokens < tokens:
            tokens = max_output_tokens
        if self.max_output_tokens is not None and self.max_output_tokens < tokens:
            tokens = self.max_output_tokens
        return tokens

    def expected_cost_usd(
        self, input_tokens: float, max_output_tokens: int | None, forecast: float | None = None
    ) -> float | None:
        """What a request should cost; none where a price or the answer's length is unknown."""
        tokens = self.expected_tokens(max_output_tokens, forecast)
        return None if tokens is None else self.cost_usd(input_tokens, tokens)

    def expected_latency_s(self, max_output_tokens: int | None, forecast: float | None = None) -> float | None:
        """How long an answer should take: until its first token, and then token by token."""
        tokens = self.expected_tokens(max_output_tokens, forecast)
        return None if tokens is None else self.latency_s(tokens)

    def latency_s(self, output_tokens: float) -> float | None:
        """How long an answer of that many tokens should take; none where no answer was timed."""
        if self.first_token_s is None or self.s_per_token is None:
            return None
        return self.first_token_s + self.s_per_token * output_tokens


@dataclass(frozen=True)
class Pool:
    """Every model that the configuration, SQL or the artifact names."""

    entries: tuple[PoolEntry, ...]
    by_name: Mapping[str, PoolEntry]
    routable: tuple[PoolEntry, ...]

    @property
    def reasons(self) -> dict[str, str]:
        """Why each model that cannot be routed to is out."""
        return {entry.name: entry.reason for entry in self.entries if entry.reason is not None}


EMPTY = Pool((), {}, ())


def join_pool(
    configured: Sequence[PoolSection],
    rows: Sequence["ModelRow"],
    artifact: "Artifact | None",
    environ: Mapping[str, str],
    simulated_base_url: str | None = None,
) -> Pool:
    """Build the pool; ConfigError where two entries would answer to one name.

    `simulated_base_url` stands in as the upstream of every model that has none. What an older database calls by a
    name that no model can have is listed with that reason, and answers to no name.
    """
    drafts = [_from_config(section) for section in configured]
    place_of = {name: place for place, draft in enumerate(drafts) for name in _names(draft)}
    retired: set[str] = set()
    faults: dict[str, str] = {}
    misnamed = {name: fault for name in (artifact.model_names if artifact else ()) if (fault := name_fault(name))}
    for row in rows:
        if fault := name_fault(row.name):
            misnamed[row.name] = fault
            continue
        row = replace(row, aliases=tuple(alias for alias in row.aliases if not name_fault(alias)))
        places = sorted({place_of[name] for name in (row.name, *row.aliases) if name in place_of})
        if len(places) > 1:
            both = " and ".join(repr(drafts[place].name) for place in places)
            raise ConfigError(f"model {row.name!r} of the database, with its aliases, is both {both} of the pool")
        if not places:
            places = [len(drafts)]
            drafts.append(PoolEntry(row.name))
        (place,) = places
        drafts[place] = entry = _with_row(drafts[place], row, environ)
        if row.retired:
            retired.add(entry.name)
        if entry.upstream is None and row.upstream_url is not None:
            why = url_fault(row.upstream_url)
            what = f"in its URL, {why}" if why else f"its key's variable {row.upstream_key_env} is not set"
            faults[entry.name] = f"{NO_UPSTREAM}: {what}"
    known = {name for draft in drafts for name in _names(draft)} | misnamed.keys()
    drafts += [PoolEntry(name) for name in (artifact.model_names if artifact else ()) if name not in known]
    if simulated_base_url is not None:
        drafts = [d if d.upstream else replace(d, upstream=Upstream(simulated_base_url, d.name)) for d in drafts]
    have_logs = {row.name for row in rows if row.n_outcomes}
    entries = tuple(_placed(draft, artifact, draft.name in retired, have_logs, faults) for draft in drafts)
    by_name = _index(entries)
    entries += tuple(PoolEntry(name, reason=fault) for name, fault in sorted(misnamed.items()))
    return Pool(entries, by_name, tuple(entry for entry in entries if entry.reason is None))


def _names(entry: PoolEntry) -> tuple[str, ...]:
    return (entry.name, *entry.aliases)


def _from_config(section: PoolSection) -> PoolEntry:
    upstream = None
    if section.upstream is not None:
        key = section.upstream.api_key
        upstream = Upstream(
            section.upstream.base_url.rstrip("/"),
            section.upstream.model or section.name,
            key.get_secret_value().strip() if key else None,
        )
    return PoolEntry(
        section.name,
        section.aliases,
        upstream,
        section.usd_per_1m_input,
        section.usd_per_1m_output,
        section.context_window,
        section.max_output_tokens,
        capabilities=None if section.capabilities is None else frozenset(section.capabilities),
        parameters=section.parameters.rules(),
    )


def _with_row(entry: PoolEntry, row: "ModelRow", environ: Mapping[str, str]) -> PoolEntry:
    """Fill what the configuration left open from the database."""
    upstream = entry.upstream
    if upstream is None and row.upstream_url is not None and not url_fault(row.upstream_url):
        key = environ.get(row.upstream_key_env, "").strip() if row.upstream_key_env else None
        if key != "":
            upstream = Upstream(row.upstream_url.rstrip("/"), row.upstream_model or row.name, key)
    more = tuple(name for name in (row.name, *row.aliases) if name not in _names(entry))
    return replace(
        entry,
        aliases=entry.aliases + more,
        upstream=upstream,
        usd_per_1m_input=row.usd_per_1m_input if entry.usd_per_1m_input is None else entry.usd_per_1m_input,
        usd_per_1m_output=row.usd_per_1m_output if entry.usd_per_1m_output is None else entry.usd_per_1m_output,
        context_window=row.context_window if entry.context_window is None else entry.context_window,
        capabilities=frozenset(row.capabilities) or None if entry.capabilities is None else entry.capabilities,
    )


def _placed(
    entry: PoolEntry, artifact: "Artifact | None", retired: bool, have_logs: set[str], faults: Mapping[str, str]
) -> PoolEntry:
    """Give an entry its column in the artifact, or the reason why it cannot be chosen."""
    if artifact is None:
        return replace(entry, reason=RETIRED if retired else "no artifact")
    column_of = {name: column for column, name in enumerate(artifact.model_names)}
    column = next((column_of[name] for name in _names(entry) if name in column_of), None)
    reason = None
    if retired:
        reason = RETIRED
    elif entry.upstream is None:
        reason = faults.get(entry.name, NO_UPSTREAM)
    elif column is None:
        newer = not have_logs.isdisjoint(_names(entry))
        reason = (
            f"its logs are newer than artifact {artifact.id}" if newer else f"no logs: not in artifact {artifact.id}"
        )
    return replace(_with_costs(entry, artifact, column), column=column, reason=reason)


def _with_costs(entry: PoolEntry, artifact: "Artifact", column: int | None) -> PoolEntry:
    """Tell an entry its usual answer's length and pace; an assumed length only where nothing was ever counted."""
    means, estimated = artifact.manifest.expected_output_tokens, artifact.manifest.output_tokens_estimated
    if all(tokens is None for tokens in means):
        entry = replace(entry, expected_output_tokens=ASSUMED_OUTPUT_TOKENS, tokens_basis="assumed")
    elif column is None:
        entry = replace(entry, expected_output_tokens=None)
    else:
        basis: Literal["counted", "estimated"] = "estimated" if estimated and estimated[column] else "counted"
        entry = replace(entry, expected_output_tokens=means[column], tokens_basis=basis)
    if column is None:
        return entry
    pace = artifact.costs.pace
    first_token_s, s_per_token = float(pace.first_token_s[column]), float(pace.s_per_token[column])
    if isnan(first_token_s) or isnan(s_per_token):
        return entry
    return replace(entry, first_token_s=first_token_s, s_per_token=s_per_token)


def _index(entries: Iterable[PoolEntry]) -> dict[str, PoolEntry]:
    by_name: dict[str, PoolEntry] = {}
    for entry in entries:
        for name in _names(entry):
            other = by_name.setdefault(name, entry)
            if other is not entry:
                raise ConfigError(f"the name {name!r} belongs to both {other.name!r} and {entry.name!r} of the pool")
    return by_name
