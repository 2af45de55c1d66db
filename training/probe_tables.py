"""What a probe found, as tables and sentences for the terminal."""

from collections.abc import Iterator

import numpy as np
from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from training.gains import Gains
from training.lineage import Families, state_p_value
from training.probe import Probe

N_FAMILIES, N_MODELS = 12, 20


def render(found: Probe) -> Iterator[RenderableType]:
    """Yield what there is to show, each with its title."""
    yield from _families(found)
    yield from _sizes(found)
    yield from _pairs(found)
    if found.gains is not None:
        yield from _gains(found.gains)
    yield from _stability(found)


def _families(found: Probe) -> Iterator[RenderableType]:
    families = found.families
    yield "\n[bold]Families[/bold]: distances between models of one family over those between any two"
    if families is None:
        yield "  names tell no two families, one of which has two models"
        return
    yield f"  {_of_families(families)}"
    if found.families_without_twins is not None:
        yield f"  one of each pair of twins left out: {_of_families(found.families_without_twins)}"
    table = _table("family", "models", "ratio", "p")
    for one in families.families[:N_FAMILIES]:
        table.add_row(escape(one.name), str(one.n_models), f"{one.ratio:.2f}", f"{one.p_value:.4f}")
    yield table


def _of_families(families: Families) -> str:
    return (
        f"{families.ratio:.2f} where chance gives {families.expected:.2f}, {state_p_value(families.p_value)} "
        f"({families.n_models} models, {families.n_pairs} pairs within {len(families.families)} families)"
    )


def _sizes(found: Probe) -> Iterator[RenderableType]:
    yield "\n[bold]Sizes[/bold]: parameters as names state them"
    sizes = found.sizes
    if sizes is None:
        yield "  too few names state a size"
        return
    yield (
        f"  log parameters go with the level of a model: r = {sizes.level_correlation:+.2f}, "
        f"{state_p_value(sizes.level_p_value)}; its other directions forecast {sizes.explained:.0%} of their "
        f"variance for models left out, {state_p_value(sizes.explained_p_value)} (n = {sizes.n_models} models)"
    )


def _pairs(found: Probe) -> Iterator[RenderableType]:
    if not found.pairs:
        return
    yield "\n[bold]Nearest models[/bold]: share of questions on which two models disagree"
    table = _table("models", "expected", "if apart", "counted", "on", "")
    for pair in found.pairs:
        table.add_row(
            f"{escape(pair.first)}\n{escape(pair.second)}",
            f"{pair.expected:.1%}",
            f"{pair.repeats:.1%}",
            f"{pair.counted:.1%}",
            f"{pair.n_shared:,}",
            "twins" if pair.is_twin else "",
        )
    yield table
    yield "  if apart: what equally able models would show, each for itself; twins err alike far more than others"


def _gains(gains: Gains) -> Iterator[RenderableType]:
    told = "" if gains.agreement is None else f"; r = {gains.agreement:.2f} with what test questions show"
    yield f"\n[bold]Benchmarks[/bold]: logits beyond the model's level and the benchmark's difficulty{told}"
    table = _table("model", *map(escape, gains.benchmarks))
    order = np.argsort(-np.abs(gains.gain).max(axis=1), kind="stable")
    for row in order[:N_MODELS]:
        table.add_row(escape(gains.models[row]), *(f"{value:+.2f}" for value in gains.gain[row]))
    yield table
    if len(order) > N_MODELS:
        yield f"  the {N_MODELS} models that gain or lose most, of {len(order)}; --json has all"


def _stability(found: Probe) -> Iterator[RenderableType]:
    yield "\n[bold]Stability[/bold]: the same log fitted with another seed"
    one = found.stability
    if one is None:
        yield "  not measured"
        return
    yield (
        f"  embeddings after alignment r = {one.embedding_correlation:.3f} ({one.by_chance:.2f} with models shuffled), "
        f"distances between models r = {one.distance_correlation:.3f}, P(correct) differs by {one.p_difference:.4f} "
        f"on average (n = {one.n_models} models, {one.n_questions:,} questions)"
    )


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, overflow="fold")
    for title in others:
        table.add_column(title, justify="right")
    return table
