"""The pool: which models there are, what is known of each, and why one cannot be routed to.

Joins what the configuration says (it wins), what SQL says and which models the artifact has a column for, by name or
alias, into one immutable value. It does no I/O: whoever watches the champion builds a new pool and swaps it in.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from router.errors import ConfigError
from router.settings import PoolSection

if TYPE_CHECKING:
    from data.queries import ModelRow
    from router.artifact import Artifact

AUTO = "auto"
NO_UPSTREAM = "no upstream"
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
    """One model. `reason` says why it is never chosen; none where it can be. `column` is its place in the artifact."""

    name: str
    aliases: tuple[str, ...] = ()
    upstream: Upstream | None = None
    usd_per_1m_input: float | None = None
    usd_per_1m_output: float | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    expected_output_tokens: float = ASSUMED_OUTPUT_TOKENS
    column: int | None = None
    reason: str | None = None

    def cost_usd(self, input_tokens: float, output_tokens: float) -> float | None:
        """What that many tokens cost; none where a price is unknown."""
        if self.usd_per_1m_input is None or self.usd_per_1m_output is None:
            return None
        return (input_tokens * self.usd_per_1m_input + output_tokens * self.usd_per_1m_output) / 1e6

    def expected_cost_usd(self, input_tokens: float, max_output_tokens: int | None) -> float | None:
        """What a request should cost: this model's usual answer, cut at the limits that hold."""
        limits = [limit for limit in (max_output_tokens, self.max_output_tokens) if limit is not None]
        return self.cost_usd(input_tokens, min(self.expected_output_tokens, *limits, self.expected_output_tokens))


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

    `simulated_base_url` stands in as the upstream of every model that has none.
    """
    drafts = [_from_config(section) for section in configured]
    place_of = {name: place for place, draft in enumerate(drafts) for name in _names(draft)}
    retired: set[str] = set()
    faults: dict[str, str] = {}
    for row in rows:
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
            faults[entry.name] = f"no upstream: its key's variable {row.upstream_key_env} is not set"
    known = {name for draft in drafts for name in _names(draft)}
    drafts += [PoolEntry(name) for name in (artifact.model_names if artifact else ()) if name not in known]
    if simulated_base_url is not None:
        drafts = [d if d.upstream else replace(d, upstream=Upstream(simulated_base_url, d.name)) for d in drafts]
    have_logs = {row.name for row in rows if row.n_outcomes}
    entries = tuple(_placed(draft, artifact, draft.name in retired, have_logs, faults) for draft in drafts)
    by_name = _index(entries)
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
    )


def _with_row(entry: PoolEntry, row: "ModelRow", environ: Mapping[str, str]) -> PoolEntry:
    """Fill what the configuration left open from the database."""
    upstream = entry.upstream
    if upstream is None and row.upstream_url is not None:
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
    )


def _placed(
    entry: PoolEntry, artifact: "Artifact | None", retired: bool, have_logs: set[str], faults: Mapping[str, str]
) -> PoolEntry:
    """Give an entry its column in the artifact, or the reason why it cannot be chosen."""
    if artifact is None:
        return replace(entry, reason="retired" if retired else "no artifact")
    column_of = {name: column for column, name in enumerate(artifact.model_names)}
    column = next((column_of[name] for name in _names(entry) if name in column_of), None)
    reason = None
    if retired:
        reason = "retired"
    elif entry.upstream is None:
        reason = faults.get(entry.name, NO_UPSTREAM)
    elif column is None:
        newer = not have_logs.isdisjoint(_names(entry))
        reason = (
            f"its logs are newer than artifact {artifact.id}" if newer else f"no logs: not in artifact {artifact.id}"
        )
    known = artifact.manifest.expected_output_tokens
    usual = known[column] if column is not None else None
    if usual is None:
        counted = [tokens for tokens in known if tokens is not None]
        usual = fmean(counted) if counted else ASSUMED_OUTPUT_TOKENS
    return replace(entry, column=column, reason=reason, expected_output_tokens=usual)


def _index(entries: Iterable[PoolEntry]) -> dict[str, PoolEntry]:
    by_name: dict[str, PoolEntry] = {}
    for entry in entries:
        for name in _names(entry):
            other = by_name.setdefault(name, entry)
            if other is not entry:
                raise ConfigError(f"the name {name!r} belongs to both {other.name!r} and {entry.name!r} of the pool")
    if AUTO in by_name:
        raise ConfigError(f"model {by_name[AUTO].name!r} has the name {AUTO!r}, which asks the router to choose")
    return by_name
