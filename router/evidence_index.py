"""Keep an index of evidence that fits the champion and the logs, off the request path.

It is built by a process of its own, `python -m router.evidence_index`, because reading a large log takes memory and the
interpreter; the server then reads one file of arrays and swaps it in whole. While the database is away, the index
that was kept last serves.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from data.database import ROOT, opened
from data.errors import EmbedRouterError
from data.queries import last_outcome, question_vectors, read_log
from router.artifact import Artifact, read_artifact
from router.champion import ChampionWatch
from router.evidence import Evidence, build_evidence, load_evidence, save_evidence

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
REST_FACTOR = 20.0  # an index that took a minute is not built again for twenty
NICENESS = 10


class EvidenceIndex:
    """Holds the index in `current`, none until there is one."""

    def __init__(self, engine: Engine, watch: ChampionWatch, folder: Path, max_questions: int) -> None:
        self._engine = engine
        self._watch = watch
        self._path = index_path(folder)
        self._max_questions = max_questions
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
        self._building: subprocess.Popen[bytes] | None = None
        self._rests_until = 0.0
        self.current: Evidence | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        building = self._building  # the thread may forget it at any time
        if building is not None:
            building.terminate()
        self._thread.join(10)

    def fitting(self, artifact: Artifact) -> Evidence | None:
        """The index, where it was made with this artifact's encoder."""
        current = self.current
        fits = current is not None and current.encoder_fingerprint == artifact.manifest.encoder_fingerprint
        return current if fits else None

    def refresh(self) -> None:
        """Bring the index up to the champion and the logs, where they have changed."""
        artifact = self._watch.current.artifact
        if artifact is None:
            return
        if self.fitting(artifact) is None:
            self.current = load_evidence(self._path, artifact.manifest.encoder_fingerprint)
        current = self.fitting(artifact)
        try:
            newest = last_outcome(self._engine)
        except SQLAlchemyError:
            return  # the champion's watch says that the database is away
        settled = current.fits(self._max_questions) if current else True
        if settled and newest == (current.watermark if current else 0):
            return
        if current and time.monotonic() < self._rests_until:
            return
        started = time.monotonic()
        if self._build(artifact):
            self.current = load_evidence(self._path, artifact.manifest.encoder_fingerprint)
        seconds = time.monotonic() - started
        self._rests_until = time.monotonic() + REST_FACTOR * seconds
        if self.current is not None and not self._stopping.is_set():
            built = self.current
            how = f"{built.search.method}, recall@10 {built.search.recall_at_10:.3f}"
            logger.info("evidence of %d labelled questions (%s), built in %.1f s", built.n_questions, how, seconds)
            if built.note:
                logger.info(built.note)

    def _build(self, artifact: Artifact) -> bool:
        command = [sys.executable, "-m", __name__, str(artifact.folder), str(self._path), str(self._max_questions)]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        url = self._engine.url.render_as_string(hide_password=False)
        environ = {**os.environ, "PYTHONPATH": path, "EMBEDROUTER_DATABASE_URL": url}
        with subprocess.Popen(
            command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as self._building:
            if self._stopping.is_set():
                self._building.terminate()
            said = self._building.communicate()[1].decode(errors="replace").strip().splitlines()
        failed = self._building.returncode != 0
        if failed and not self._stopping.is_set():
            logger.warning("the evidence stays as it was: %s", said[-1] if said else "its process was killed")
        self._building = None
        return not failed

    def _run(self) -> None:
        looked_at, known = -LOOK_EVERY_S, None
        while not self._stopping.is_set():
            artifact = self._watch.current.artifact
            if artifact is not known or time.monotonic() - looked_at > LOOK_EVERY_S:
                looked_at, known = time.monotonic(), artifact
                try:
                    self.refresh()
                except Exception:  # evidence explains; nothing may fail for want of it
                    logger.exception("the evidence stays as it was")
            self._stopping.wait(1.0)


def index_path(folder: Path) -> Path:
    """Where a server keeps its index."""
    return folder / "evidence.safetensors"


def read_evidence(engine: Engine, artifact: Artifact, path: Path, max_questions: int) -> Evidence:
    """The index of the logs as they are now: the one that was kept, where it fits, else a new one, which is kept."""
    kept = load_evidence(path, artifact.manifest.encoder_fingerprint)
    if kept is not None and kept.watermark == last_outcome(engine) and kept.fits(max_questions):
        return kept
    encoder = artifact.encoder
    known = None if encoder.depends_on_logs else question_vectors(engine, encoder.fingerprint)
    built = build_evidence(read_log(engine), encoder, max_questions=max_questions, known=known)
    try:
        save_evidence(built, path)
    except OSError as error:
        logger.warning("the evidence is not kept in %s: %s", path, error.strerror)
    return built


def main(artifact_folder: str, path: str, max_questions: str) -> None:
    """Build the index of the environment's database."""
    os.nice(NICENESS)
    with opened() as engine:
        read_evidence(engine, read_artifact(Path(artifact_folder)), Path(path), int(max_questions))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (EmbedRouterError, SQLAlchemyError) as error:
        sys.exit(f"{type(error).__name__}: {str(error).splitlines()[0]}")
