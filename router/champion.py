"""Follow the champion: load a promoted artifact and swap it in, while requests run.

A thread asks SQL which artifact is champion and what the pool holds. A new artifact is read, checked and warmed before
one reference changes hands, together with the pool that fits it; a request keeps the reference it began with. What
cannot be loaded changes nothing: the old one goes on, and the log says why. Only where there is no old one is an
artifact taken whose encoder fails, as an endpoint may that is away: its requests go to the default model. What SQL said
last is kept on disk, so that a server starts while the database is away.
"""

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from safetensors import SafetensorError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from data.errors import EmbedRouterError
from data.queries import ChampionRow, ModelRow, champion, pool_models, retired_models
from router.artifact import Artifact, read_artifact
from router.choice import forecasts
from router.errors import ArtifactError, EncoderError
from router.logs import Secrets
from router.pool import EMPTY, Pool, join_pool
from router.settings import Settings
from router.state import LastSeen, read_last_seen, state_folder, write_last_seen

logger = logging.getLogger(__name__)

# What reading a database, a directory of arrays or an encoder can fail with.
LOAD_ERRORS = (EmbedRouterError, SQLAlchemyError, SafetensorError, OSError, ValueError, RuntimeError)
POOL_EVERY_POLLS = 10  # counting outcomes is dearer than asking for the champion
MAX_BACKOFF_POLLS = 10
WARM_WORDS = (1, 30, 300, 3_000)  # how long the prompts are that run before a request does


@dataclass(frozen=True)
class Champion:
    """What requests are routed with: an artifact, if there is one, and the pool that fits it."""

    artifact: Artifact | None = None
    pool: Pool = EMPTY
    made_at: datetime | None = None


class ChampionWatch:
    """Holds the champion in `current`. `problem` says why the newest could not be taken, where it could not."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        *,
        simulated_base_url: str | None = None,
        environ: Mapping[str, str] = os.environ,
        secrets: Secrets | None = None,
    ) -> None:
        self._engine = engine
        self.settings = settings
        self._simulated_base_url = simulated_base_url
        self._environ = environ
        self._secrets = secrets or Secrets()
        self._state = state_folder(settings.state_dir, engine.url)
        self._models: Sequence[ModelRow] = ()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="champion", daemon=True)
        self.current = Champion()
        self.problem: str | None = None
        if not self.refresh():
            self._recall()

    @property
    def missing(self) -> str:
        """What to do about having no artifact."""
        why = f" ({self.problem})" if self.problem else ""
        return f"no artifact is promoted yet; `embedrouter train` makes and promotes one{why}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(30)

    def refresh(self, *, with_pool: bool = True) -> bool:
        """Take the champion and the pool as SQL has them now; False, with `problem`, where that failed."""
        try:
            row = champion(self._engine)
            known = self.current.artifact
            changed = (row.artifact_id if row else None) != (known.id if known else None)
            retired = retired_models(self._engine) != {model.name for model in self._models if model.retired}
            if with_pool or changed or retired:
                models = pool_models(self._engine)
                if self._take(row, models, known if not changed else None):
                    write_last_seen(self._state, LastSeen(row, models))
        except LOAD_ERRORS as error:
            # a database's own words hold statements and addresses, and /health/ready needs no key
            said = "the database does not answer" if isinstance(error, SQLAlchemyError) else str(error)
            problem = f"{type(error).__name__}: {said}"
            if problem != self.problem:
                logger.warning("the champion cannot be taken, the one before goes on: %s", problem)
            self.problem = problem
            return False
        self.problem = None
        return True

    def _recall(self) -> None:
        """Take what SQL said last, from this machine's copy, where there is one."""
        seen = read_last_seen(self._state)
        if seen is None:
            return
        try:
            self._take(seen.champion, seen.models, None)
        except LOAD_ERRORS as error:
            logger.warning("the champion that was known last cannot be taken: %s", error)
        else:
            logger.warning("the champion and the pool are as they were known last, until the database answers")

    def _take(self, row: ChampionRow | None, models: Sequence[ModelRow], known: Artifact | None) -> bool:
        """Swap in a champion and a pool; whether that changed anything."""
        if known is not None and models == self._models:
            return False
        artifact = known
        if artifact is None and row is not None:
            artifact = read_artifact(self._folder(row))
            self._warm(artifact)
        pool = join_pool(self.settings.pool, models, artifact, self._environ, self._simulated_base_url)
        self._secrets.add(e.upstream.key for e in pool.entries if e.upstream is not None and e.upstream.key)
        before, made_at = self.current.artifact, row.made_at if row else None
        self.current, self._models = Champion(artifact, pool, made_at), models
        default = self.settings.policy.default_model
        if default is not None and (default not in pool.by_name or not pool.by_name[default].is_callable):
            logger.warning("policy.default_model %r cannot be called: absent, retired or without upstream", default)
        if artifact is not None and artifact is not before:
            logger.info("artifact %s serves, %d models routable", artifact.id, len(pool.routable))
        return True

    def _warm(self, artifact: Artifact) -> None:
        """Forecast a few prompts of different lengths, each alone and all together, as requests will."""
        alone, together = ([f"{word} " * n for n in WARM_WORDS] for word in ("alone", "together"))
        try:
            for texts in (*([text] for text in alone), together):
                forecasts(artifact, texts)
        except EncoderError as error:
            if self.current.artifact is not None:
                raise
            logger.warning("artifact %s is taken although its encoder fails: %s", artifact.id, error)

    def _folder(self, row: ChampionRow) -> Path:
        """Where an artifact lies: as it was registered, else under the configured directory."""
        registered = Path(row.path)
        here = self.settings.artifacts_dir / row.artifact_id
        folder = registered if registered.is_dir() or not here.is_dir() else here
        if folder.name != row.artifact_id:
            raise ArtifactError(f"{folder} is not artifact {row.artifact_id}, the champion")
        return folder

    def _run(self) -> None:
        poll_s = self.settings.champion_poll_s
        n_polls = n_failures = 0
        while not self._stopping.wait(poll_s * min(2**n_failures, MAX_BACKOFF_POLLS)):
            n_polls += 1
            good = self.refresh(with_pool=n_polls % POOL_EVERY_POLLS == 0)
            n_failures = 0 if good else n_failures + 1
