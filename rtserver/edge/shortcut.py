"""The shortest way of a frame to the kernel: `send` on the transport's own socket.

uvloop hands out no socket that can send, so one is made for the same descriptor. It is borrowed: the transport
closes it, and after that the number may be another connection's. Both event loops call `connection_lost` before they
close it, whoever ends the connection: there the socket is let go (edge/connections.py).
"""

import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

__all__ = ["Shortcut", "shortcut"]


class _Transport(Protocol):
    def get_extra_info(self, name: str) -> Any: ...


class Shortcut:
    """A borrowed socket.

    Attributes:
        send: Hands bytes to the kernel and returns how many it took, or raises OSError. While the transport has
            unsent bytes of its own it would overtake them.
    """

    __slots__ = ("_borrowed", "send")

    def __init__(self, plain: socket.socket) -> None:
        self._borrowed = socket.socket(plain.family, plain.type, plain.proto, fileno=plain.fileno())
        self.send: Final[Callable[[bytes], int]] = self._borrowed.send

    def end(self) -> None:
        """Let it go, not closed: whoever still has its `send` gets an error instead of somebody else's connection."""
        self._borrowed.detach()


def shortcut(transport: _Transport) -> Shortcut | None:
    """Borrow a transport's socket until `end` is called; None where there is no plain one under it (TLS, a pipe)."""
    plain = transport.get_extra_info("socket")
    if plain is None or transport.get_extra_info("sslcontext") is not None or plain.type != socket.SOCK_STREAM:
        return None
    return Shortcut(plain)
