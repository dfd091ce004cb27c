"""Which TCP ports of this machine are free. A look only: whoever binds first has the port."""

from __future__ import annotations

import socket
from typing import Final

__all__ = ["LOOPBACK", "free_port", "is_port_free"]

LOOPBACK: Final = "127.0.0.1"


def is_port_free(port: int, host: str = LOOPBACK) -> bool:
    """Return whether something could listen on this TCP port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are still in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = LOOPBACK) -> int:
    """Return a TCP port that nothing listens on at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
