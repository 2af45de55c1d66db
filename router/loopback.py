"""Serve an ASGI app from a thread on the loopback interface, for as long as a `with` block lasts."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from router.joined_head import JoinedHeadProtocol
from router.listener import bind

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 15.0


@contextmanager
def serve_in_thread(app: ASGIApp, port: int = 0, option: str = "--port") -> Iterator[str]:
    """Yield the app's URL, without a path; port 0 is any free one. ConfigError where the port is taken."""
    with bind("127.0.0.1", port, option) as listener:
        config = uvicorn.Config(
            app,
            http=JoinedHeadProtocol,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="loopback", daemon=True)
        thread.start()
        try:
            _wait_for_start(server, thread)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(_STOP_TIMEOUT_S)  # a daemon: what hangs in it does not keep the process


def _wait_for_start(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the server did not start; its log says why")
        time.sleep(0.005)
