"""What a server keeps on its own disk, so that it does not need the database to start or to lose nothing.

A folder for each database: the spool of records, and a copy of the champion and the pool as SQL had them last. The
copy names the variables of upstreams' keys, as SQL does, and never holds a key.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from data.queries import ChampionRow, ModelRow
from router.ids import new_id

logger = logging.getLogger(__name__)

DEFAULT = Path("var/state")
FORMAT_VERSION = 1


def state_folder(configured: Path | None, database: URL) -> Path:
    """Where a server of this database keeps its state; databases never share a folder."""
    named = database.database or "memory"
    file = Path(named) if database.get_backend_name() == "sqlite" and named != ":memory:" else None
    root = configured or (file.parent / "state" if file else DEFAULT)
    where = str(file.resolve()) if file else f"{database.host}:{database.port}/{named}?{sorted(database.query.items())}"
    return root / f"{Path(named).stem}-{sha256(where.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class LastSeen:
    """The champion and the models as SQL had them last."""

    champion: ChampionRow | None
    models: Sequence[ModelRow]


def write_last_seen(folder: Path, seen: LastSeen) -> None:
    """Keep a copy; one that cannot be kept is said, and nothing else fails."""
    champion = None if seen.champion is None else asdict(seen.champion)
    content = {"format_version": FORMAT_VERSION, "champion": champion, "models": [asdict(m) for m in seen.models]}
    draft = folder / f".last_seen-{new_id()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            json.dump(content, file, default=datetime.isoformat)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / "last_seen.json")
    except OSError as error:
        logger.warning("no copy of champion and pool is kept in %s: %s", folder, error.strerror)


def read_last_seen(folder: Path) -> LastSeen | None:
    """The copy, if there is one that can be read."""
    try:
        content: dict[str, Any] = json.loads((folder / "last_seen.json").read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            return None
        champion = content["champion"]
        if champion is not None:
            dates = {name: datetime.fromisoformat(champion[name]) for name in ("promoted_at", "made_at")}
            champion = ChampionRow(**{**champion, **dates})
        sequences = ("capabilities", "aliases")
        models = [ModelRow(**{**row, **{name: tuple(row[name]) for name in sequences}}) for row in content["models"]]
        return LastSeen(champion, models)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("the copy of champion and pool in %s cannot be read: %s", folder, type(error).__name__)
        return None
