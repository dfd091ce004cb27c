"""A server on a real socket that a test plays by hand: connections come out of `next`, messages go in and out."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve

from .messages import Told, welcome

__all__ = ["Peer", "ScriptedServer"]

TIMEOUT_S = 10.0


class Peer:
    """One client's connection, as its server sees it."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.done = asyncio.Event()

    async def send(self, *messages: dict[str, Any] | str) -> None:
        for message in messages:
            await self.socket.send(message if isinstance(message, str) else json.dumps(message))

    async def expect(self, kind: str) -> dict[str, Any]:
        """Return the client's next message, which must be of this type; pongs are passed over."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.recv())
                if message["type"] == kind:
                    return message
                assert message["type"] == "pong", message

    async def join(self, told: Told, *, parts: int = 1) -> dict[str, Any]:
        """Answer a subscribe with a snapshot."""
        request = await self.expect("subscribe")
        await self.send(*told.snapshot(request["id"], parts=parts), told.subscribed(request["id"]))
        return request

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.socket.close(code, reason)
        self.done.set()

    def cut(self) -> None:
        """Break the connection without a word."""
        self.socket.transport.abort()
        self.done.set()


class ScriptedServer:
    """Listens on a free port of the loopback while it is open."""

    def __init__(self, *, greet: bool = True, heartbeat_ms: int = 15_000) -> None:
        self._greet = greet
        self._greet_next = False
        self._heartbeat_ms = heartbeat_ms
        self._server: Server | None = None
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._all: list[Peer] = []

    async def __aenter__(self) -> Self:
        self._server = await serve(self._handle, "127.0.0.1", 0, compression=None, ping_interval=None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        for peer in self._all:
            peer.cut()
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/ws"

    def greet_next(self) -> None:
        """Welcome the next client, whatever is usual."""
        self._greet_next = True

    async def next(self) -> Peer:
        """Return the next client that connected."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self._peers.get()

    async def _handle(self, socket: ServerConnection) -> None:
        peer = Peer(socket)
        self._all.append(peer)
        if self._greet or self._greet_next:
            self._greet_next = False
            await peer.send(welcome(heartbeat_ms=self._heartbeat_ms))
        self._peers.put_nowait(peer)
        await peer.done.wait()
