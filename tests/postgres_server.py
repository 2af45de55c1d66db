"""A PostgreSQL server of the test's own, which it may stop and start; the shared one is left in peace."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from router.listener import bind

SETTINGS = ("listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=16MB", "max_connections=20", "jit=off")


@dataclass(frozen=True)
class PostgresServer:
    """A server on a port of its own; it refuses to run as root, so root lends it to the user `postgres`."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = " ".join(f"-c {setting}" for setting in (*SETTINGS, f"unix_socket_directories={self.folder}"))
        log = str(self.folder / "log")
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", log, "-o", f"-p {self.port} {options}", "start"
        )

    def stop(self) -> None:
        """Stop at once, as a crash would: connections break, and the next start recovers."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def _run(self, *command: str) -> None:
        user = "postgres" if os.geteuid() == 0 else None
        subprocess.run(command, cwd=self.folder, user=user, check=True, stdout=subprocess.DEVNULL, timeout=60)


@contextmanager
def run_postgres() -> Iterator[PostgresServer]:
    """A fresh server that runs; the test skips where PostgreSQL is not installed."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("no initdb and pg_ctl in PATH: PostgreSQL's own programs are needed to stop and start one")
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="embedrouter-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        server = PostgresServer(folder, port)
        data = str(folder / "data")
        server._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
