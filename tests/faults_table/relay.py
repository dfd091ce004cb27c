"""The way between a client and the server: TCP, byte for byte, that can be cut, shut and held up."""

from __future__ import annotations

import asyncio
from typing import Self

__all__ = ["Relay"]

_CHUNK_BYTES = 1 << 16


class Relay:
    """A port that leads to another port of this machine, as an async context manager.

    Args:
        target: The port that it leads to.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """Reset every open connection, on both sides."""
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self) -> None:
        """Pass nothing on, in neither direction: for the server, a client that sleeps."""
        self._open.clear()

    def release(self) -> None:
        """Pass on what waited, and what comes."""
        self._open.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.release()
        self.cut()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            back, onward = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(onward)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, onward))
                group.create_task(self._pass(back, writer))
        except* OSError:
            # Nobody listens there, or one side was reset: so is the other.
            writer.transport.abort()
        finally:
            for each in (writer, onward):
                if each is not None:
                    self._writers.discard(each)
                    each.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while True:
            await self._open.wait()
            chunk = await source.read(_CHUNK_BYTES)
            await self._open.wait()
            if sink.is_closing():
                return
            if not chunk:
                sink.write_eof()
                return
            sink.write(chunk)
            await sink.drain()
