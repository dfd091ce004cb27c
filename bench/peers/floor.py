"""The floor: uvloop, a handshake, and `transport.write` of one prebuilt frame to every client. Nothing else.

No reading, no limits, no slow clients, no goodbye: what no server in Python can be cheaper than.
"""

import asyncio
import base64
import hashlib
import sys
from typing import Any, Final, cast

import uvloop

from bench.peers.control import broadcast, obey

_MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class _Client(asyncio.Protocol):
    open: Final[dict["_Client", None]] = {}

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._request: bytes | None = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._request is None:
            return
        self._request += data
        head, found, _ = self._request.partition(b"\r\n\r\n")
        if not found:
            return
        key = next(
            line.split(b":", 1)[1].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key:")
        )
        accept = base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())
        assert self.transport is not None
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self._request = None
        self.open[self] = None

    def connection_lost(self, error: Exception | None) -> None:
        self.open.pop(self, None)


def _frame(text: bytes) -> bytes:
    size = len(text)
    if size < 126:
        return bytes((0x81, size)) + text
    return b"\x81\x7e" + size.to_bytes(2, "big") + text


def _send(text: bytes) -> None:
    frame = _frame(text)
    for client in _Client.open:
        client.transport.write(frame)  # type: ignore[union-attr]


async def _main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Client, "127.0.0.1", port, backlog=4096)

    async def handle(command: dict[str, Any]) -> None:
        await broadcast(command, _send)

    async with server:
        await obey(port, handle)


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
