"""The TCP way to Redis, which a test can break: it leads to whoever is master now, as a name or a proxy does.

And it can fall silent for what has subscribed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, Self

__all__ = ["RedisLine"]

_CHUNK_BYTES: Final = 1 << 16
# A command as a client sends it, a bulk string in capitals. What was subscribed to is heard on that connection alone.
_SUBSCRIBES: Final = (b"\r\nSUBSCRIBE\r\n", b"\r\nSSUBSCRIBE\r\n")


class _Pair:
    """One connection and the way on; both end together."""

    def __init__(self, writer: asyncio.StreamWriter, onward: asyncio.StreamWriter) -> None:
        self.ends = (writer, onward)
        self.is_subscribed = False
        self.is_open = asyncio.Event()
        self.is_open.set()

    def cut(self) -> None:
        """Reset both ends."""
        self.is_open.set()
        for end in self.ends:
            end.transport.abort()


class RedisLine:
    """A port that leads to a Redis, as an async context manager.

    Args:
        target: The port that it leads to first.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()

    @property
    def url(self) -> str:
        """Return where engines and gateways find Redis."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def lead(self, port: int) -> None:
        """Lead to another server, and break with the one before."""
        self._target = port
        self._cut()

    def mute(self) -> int:
        """Pass nothing more on what is subscribed now, and tell nobody: half-open connections. Return how many."""
        muted = [pair for pair in self._pairs if pair.is_subscribed]
        for pair in muted:
            pair.is_open.clear()
        return len(muted)

    def _cut(self) -> None:
        for pair in list(self._pairs):
            pair.cut()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._cut()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            # Nobody listens there.
            writer.transport.abort()
            return
        pair = _Pair(writer, onward)
        self._pairs.add(pair)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, onward, pair, is_from_client=True))
                group.create_task(self._pass(back, writer, pair))
        finally:
            self._pairs.discard(pair)

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, pair: _Pair, *, is_from_client: bool = False
    ) -> None:
        with suppress(OSError):
            while chunk := await source.read(_CHUNK_BYTES):
                pair.is_subscribed |= is_from_client and any(word in chunk for word in _SUBSCRIBES)
                await pair.is_open.wait()
                if sink.is_closing():
                    break
                sink.write(chunk)
                await sink.drain()
        # One side gone is both gone: what is under way may be lost, as on any network.
        for end in pair.ends:
            end.close()
