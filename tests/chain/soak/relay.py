"""The wire between one client and its server, which can break and fall asleep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

__all__ = ["Relay"]

# Small: what a client does not take has to show at the server soon.
_CHUNK: Final = 65536


class Relay:
    """TCP between one client and the server: can be reset, and can stop taking what the server sends."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._target = port
        self._awake = asyncio.Event()
        self._awake.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Relay]:
        """Listen."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_CHUNK)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.wake()
            self.cut()
            await server.wait_closed()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def sleep(self) -> None:
        """Take nothing more from the server."""
        self._awake.clear()

    def wake(self) -> None:
        """Go on."""
        self._awake.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, onward = await asyncio.open_connection("127.0.0.1", self._target, limit=_CHUNK)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, onward}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, onward, both))
                group.create_task(self._pass(there, writer, both, is_paced=True))
        finally:
            self._writers -= both

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        both: set[asyncio.StreamWriter],
        *,
        is_paced: bool = False,
    ) -> None:
        with suppress(OSError):
            while True:
                if is_paced:
                    await self._awake.wait()
                if not (data := await reader.read(_CHUNK)) or writer.is_closing():
                    break
                writer.write(data)
                await writer.drain()
        # One side gone is both gone: what is under way may be lost, as on any network.
        for each in both:
            each.close()
