"""The way between a client and the server: TCP, byte for byte, that can be reset and held up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, Literal, Self, TypeAlias

__all__ = ["BOTH", "Direction", "Relay"]

Direction: TypeAlias = Literal["to client", "to server"]
BOTH: Final[tuple[Direction, ...]] = ("to client", "to server")

# Small: what a client does not take has to show at the server soon.
_CHUNK_BYTES: Final = 1 << 16
# Thousands of clients may come back at once.
_BACKLOG: Final = 4096


class Relay:
    """A port that leads to another port of this machine, as an async context manager; can be entered again.

    Args:
        target: The port that it leads to.
        others: More of them, as behind a load balancer: each connection goes to the next that takes it. May change.
    """

    def __init__(self, target: int, *others: int) -> None:
        self.targets = [target, *others]
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._goes_on: dict[Direction, asyncio.Event] = {direction: asyncio.Event() for direction in BOTH}
        self._writers: set[asyncio.StreamWriter] = set()
        self.release()

    @property
    def port(self) -> int:
        """Return where clients connect to."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """Return how many are open."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """Reset every open connection, on both sides."""
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self, *directions: Direction) -> None:
        """Pass nothing on that way, neither bytes nor ends; by default both, as with a client that sleeps.

        One that only reads nothing holds up "to client"; it may still speak.
        """
        for direction in directions or BOTH:
            self._goes_on[direction].clear()

    def release(self, *directions: Direction) -> None:
        """Pass on what waited that way, and what comes; by default both."""
        for direction in directions or BOTH:
            self._goes_on[direction].set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_CHUNK_BYTES, backlog=_BACKLOG)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.release()
        self.cut()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = self._turn % len(self.targets)
        self._turn += 1
        for target in (*self.targets[first:], *self.targets[:first]):
            with suppress(OSError):
                back, onward = await asyncio.open_connection("127.0.0.1", target, limit=_CHUNK_BYTES)
                break
        else:
            # Nobody listens there.
            writer.transport.abort()
            return
        both = {writer, onward}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, onward, "to server"))
                group.create_task(self._pass(back, writer, "to client"))
        except* OSError:
            # One side was reset: so is the other.
            for each in both:
                each.transport.abort()
        finally:
            self._writers -= both
            for each in both:
                each.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction) -> None:
        goes_on = self._goes_on[direction]
        while True:
            # Before the read, so that a held source fills up; after it, for what was being read when it was held.
            await goes_on.wait()
            chunk = await source.read(_CHUNK_BYTES)
            await goes_on.wait()
            if sink.is_closing():
                return
            if not chunk:
                sink.write_eof()
                return
            sink.write(chunk)
            await sink.drain()
