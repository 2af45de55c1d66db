"""Where a model's answers contradict each other, or what the logs held of it before: counted, and said in sentences.

All of them are kept, and a question's answers count as their mean; which of them are wrong only a person can tell.
"""

import shlex
from dataclasses import dataclass

import pandas as pd

from data.queries import ANSWER_COUNTS


@dataclass(frozen=True)
class Contradictions:
    """What a model's answers since the champion's training contradict, in numbers of questions.

    n_each_other: those with answers of both kinds, which `sources` brought; n_logged: those that it had answered
    before, and n_against_logs: of these, where all earlier answers say otherwise.
    """

    n_each_other: int
    sources: tuple[str, ...]
    n_logged: int
    n_against_logs: int


def find_contradictions(counts: pd.DataFrame) -> Contradictions:
    """Compare one model's answers, counted as `data.queries.answer_counts` does."""
    by_question = counts.groupby("question")[list(ANSWER_COUNTS)].sum()
    later = by_question[by_question["n"] > 0]
    mixed = later[(later["n_right"] > 0) & (later["n_right"] < later["n"])]
    brought = counts[(counts["n"] > 0) & counts["question"].isin(mixed.index)]
    logged = later[later["n_earlier"] > 0]
    all_wrong, all_right = logged["n_earlier_right"] == 0, logged["n_earlier_right"] == logged["n_earlier"]
    against = (all_wrong & (logged["n_right"] > 0)) | (all_right & (logged["n_right"] < logged["n"]))
    return Contradictions(len(mixed), tuple(sorted(set(brought["source"]))), len(logged), int(against.sum()))


def warn_of(found: Contradictions, model_name: str, source: str) -> tuple[str, ...]:
    """Say what contradicts what, and what to do about it; nothing where nothing does.

    source: under which the model's answers are kept.
    """
    said = []
    if found.n_each_other:
        said.append(
            f"answers to {found.n_each_other:,} question{'s' * (found.n_each_other > 1)} contradict earlier ones of "
            f"{model_name}, in this file or before it: all are kept, and count as their mean, one right and one wrong "
            f"as half right. {_mend(found, source)}"
        )
    if found.n_against_logs:
        said.append(
            f"{found.n_against_logs:,} of its {found.n_logged:,} answers to logged questions contradict what the logs "
            f"hold of it. If these ones are wrong: {forget(source)}, which forgets all answers that were onboarded, "
            "and `embedrouter artifacts rollback`"
        )
    return tuple(said)


def forget(source: str) -> str:
    """The command that forgets a source."""
    return f"`embedrouter imports forget {shlex.quote(source)} --yes`"


def _mend(found: Contradictions, source: str) -> str:
    if found.sources == (source,):
        return f"If the earlier ones were wrong: {forget(source)}, then onboard again with the right ones alone"
    return f"They come from {', '.join(found.sources)}: `embedrouter imports forget` takes a source that is wrong"
