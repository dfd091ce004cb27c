"""TCP ways that a test can break: one to Redis, which can lead elsewhere or go deaf, and one to several gateways.

Both are what stands there in earnest: a name or a proxy that leads to whoever is master now, and a load balancer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

__all__ = ["Front", "RedisLine"]

_CHUNK_BYTES = 1 << 16
# A command as a client sends it, a bulk string in capitals. What was subscribed to is heard on that connection alone.
_SUBSCRIBES = (b"\r\nSUBSCRIBE\r\n", b"\r\nSSUBSCRIBE\r\n")


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


class _Way:
    """A port that leads to one of several others, as an async context manager."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """Reset every open connection, on both sides."""
        for pair in list(self._pairs):
            pair.cut()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def targets(self) -> Sequence[int]:
        """Return the ports to try, in order."""
        raise NotImplementedError

    def look(self, pair: _Pair, chunk: bytes) -> None:
        """Look at what a client sends."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self.targets():
            with suppress(OSError):
                back, onward = await asyncio.open_connection("127.0.0.1", port)
                break
        else:
            writer.transport.abort()
            return
        pair = _Pair(writer, onward)
        self._pairs.add(pair)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, onward, pair, self.look))
                group.create_task(self._pass(back, writer, pair, None))
        finally:
            self._pairs.discard(pair)

    async def _pass(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        pair: _Pair,
        look: Callable[[_Pair, bytes], None] | None,
    ) -> None:
        with suppress(OSError):
            while chunk := await source.read(_CHUNK_BYTES):
                if look is not None:
                    look(pair, chunk)
                await pair.is_open.wait()
                if sink.is_closing():
                    break
                sink.write(chunk)
                await sink.drain()
        # One side gone is both gone: what is under way may be lost, as on any network.
        for end in pair.ends:
            end.close()


class RedisLine(_Way):
    """The way to Redis.

    Args:
        target: The port that it leads to first.
    """

    def __init__(self, target: int) -> None:
        super().__init__()
        self._target = target

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def lead(self, port: int) -> None:
        """Lead to another server, and break with the one before."""
        self._target = port
        self.cut()

    def mute(self) -> int:
        """Pass nothing more on what is subscribed now, and tell nobody: half-open connections. Return how many."""
        muted = [pair for pair in self._pairs if pair.is_subscribed]
        for pair in muted:
            pair.is_open.clear()
        return len(muted)

    def targets(self) -> Sequence[int]:
        """Return the one."""
        return (self._target,)

    def look(self, pair: _Pair, chunk: bytes) -> None:
        """Notice a subscription."""
        pair.is_subscribed |= any(word in chunk for word in _SUBSCRIBES)


class Front(_Way):
    """The way to gateways, each connection to the next one that takes it.

    Args:
        ports: Where they are.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__()
        self.ports = list(ports)
        self._turn = 0

    def targets(self) -> Sequence[int]:
        """Return all, another one first each time."""
        self._turn += 1
        first = self._turn % len(self.ports)
        return [*self.ports[first:], *self.ports[:first]]
