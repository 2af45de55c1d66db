"""Which artifact a reader means, and the log as it stood when it was trained."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from data import queries
from data.queries import ArtifactRow
from router.artifact import Artifact, read_artifact
from training.dataset import Correctness
from training.errors import TrainingError


@dataclass(frozen=True)
class Source:
    """An artifact with its row in SQL, whether it is the champion, and the log that it was trained on."""

    row: ArtifactRow
    is_champion: bool
    artifact: Artifact
    data: Correctness


def read_source(engine: Engine, prefix: str | None = None) -> Source:
    """Read the champion, the newest where there is none, or the artifact whose id begins with `prefix`.

    TrainingError where no artifact or several are meant.
    """
    champion = queries.champion(engine)
    champion_id = None if champion is None else champion.artifact_id
    row = _choose(queries.artifacts(engine), prefix, champion_id)
    data = Correctness.from_log(queries.read_log(engine, up_to_outcome=row.outcome_watermark))
    return Source(row, champion_id == row.id, read_artifact(Path(row.path)), data)


def _choose(rows: list[ArtifactRow], prefix: str | None, champion_id: str | None) -> ArtifactRow:
    if not rows:
        raise TrainingError("no artifact to report on: `embedrouter train` makes one")
    wanted = prefix or champion_id or rows[0].id
    matching = [row for row in rows if row.id.startswith(wanted)]
    if len(matching) != 1:
        there = ", ".join(row.id for row in matching or rows[:5])
        raise TrainingError(
            f"{len(matching)} artifacts begin with {wanted!r}; {'these' if matching else 'there'}: {there}"
        )
    return matching[0]
