"""The socket that the service listens on, bound before anything else starts so that a taken port is said plainly."""

import socket

from router.errors import ConfigError

BACKLOG = 2048


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """Bind a listening address; ConfigError says why where it cannot be, and which option would change it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"cannot serve on {host}: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)  # who asks before the service runs waits, and is not refused
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot serve on {host} port {port}: {error.strerror}; try {option} 0") from error
    return listener
