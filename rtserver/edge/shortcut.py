"""The shortest way of a frame to the kernel: `send` on the transport's own socket.

uvloop hands out no socket that can send, so one is made for the same descriptor. It is borrowed: the transport
closes it, and after that the number may be another connection's. So it is sent to only while the transport is
not closing (hub/fan_out.py), and let go before anything could close it a second time.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

__all__ = ["shortcut"]


class _Transport(Protocol):
    def get_extra_info(self, name: str) -> Any: ...


@contextmanager
def shortcut(transport: _Transport) -> Iterator[Callable[[bytes], int] | None]:
    """Lend how bytes are handed to a transport's kernel at once: it takes some of them, or raises OSError.

    None for a transport without a plain stream socket under it (TLS, a pipe): that one has to do it by itself.
    """
    plain = transport.get_extra_info("socket")
    if plain is None or transport.get_extra_info("sslcontext") is not None or plain.type != socket.SOCK_STREAM:
        yield None
        return
    borrowed = socket.socket(plain.family, plain.type, plain.proto, fileno=plain.fileno())
    try:
        yield borrowed.send
    finally:
        # Not closed. Whoever still has its `send` gets an error now instead of somebody else's connection.
        borrowed.detach()
