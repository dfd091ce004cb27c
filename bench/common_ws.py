"""A WebSocket client's bytes, bare: the handshake, masked text frames out, unmasked frames in.

For load generators, where a library's cost per frame would be measured with the server's. Knows nothing of
what the frames say, and trusts the peer: no accept key is checked, no limits are kept.
"""

import base64
import os
import socket
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

__all__ = ["Frames", "connect", "masked_text"]

_TEXT: Final = 0x1
_CLOSE: Final = 0x8
_PING: Final = 0x9
_CONNECT_TIMEOUT_S: Final = 10.0


class Frames:
    """Puts a socket's chunks together into frames, and says when each was complete."""

    __slots__ = ("_rest",)

    def __init__(self, rest: bytes = b"") -> None:
        self._rest = bytearray(rest)

    def take(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the text of each frame that a chunk completes; pings are left out.

        Raises:
            ConnectionError: The peer closes.
        """
        self._rest += chunk
        while True:
            rest = self._rest
            if len(rest) < 2:
                return
            size, start = rest[1] & 0x7F, 2
            if size == 126:
                size, start = int.from_bytes(rest[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(rest[2:10], "big"), 10
            if len(rest) < start + size:
                return
            opcode, payload = rest[0] & 0x0F, bytes(rest[start : start + size])
            del rest[: start + size]
            if opcode == _CLOSE:
                raise ConnectionError(f"closed with code {int.from_bytes(payload[:2], 'big')}")
            if opcode == _TEXT:
                yield payload


def connect(url: str, timeout_s: float = _CONNECT_TIMEOUT_S) -> tuple[socket.socket, bytes]:
    """Open a WebSocket; return the blocking socket and whatever came after the handshake.

    Raises:
        OSError: Nobody listens, or no answer in time.
        ConnectionError: The answer is not 101.
    """
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 80), timeout=timeout_s)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            chunk = connection.recv(4096)
            if not chunk:
                raise ConnectionError("closed during the handshake")
            answer += chunk
    except BaseException:
        connection.close()
        raise
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b" 101 " not in head.split(b"\r\n", 1)[0]:
        connection.close()
        raise ConnectionError(head.decode(errors="replace")[:200])
    return connection, rest


def masked_text(payload: bytes) -> bytes:
    """Return a client's text frame. The mask is zero, which RFC 6455 lets a receiver not notice."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, 0x80 | size)) + b"\0\0\0\0" + payload
    return b"\x81\xfe" + size.to_bytes(2, "big") + b"\0\0\0\0" + payload
