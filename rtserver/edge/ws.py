"""The client socket: aiohttp does the handshake and the reading, frames go straight to the transport.

Decides what a client's message means and how fast it may send; everything else is the hub's.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, assert_never

import msgspec
from aiohttp import WSMsgType, web

from ..domain.errors import ClientError
from ..hub.hub import Hub
from ..hub.session import Session
from ..protocols.channels import Channel, parse_channel
from ..wire.codes import CloseCode
from ..wire.messages import Auth, ClientId, ClientMessage, Pong, Refresh, Resync, Subscribe, Unsubscribe, decode_client
from .admission import AtOnce, Bucket
from .budgets import Budgets
from .connections import Connection
from .problems import problem
from .rest import Rest
from .sparse_log import SparseLog
from .upgrade import refusal

__all__ = ["Sockets"]

# A client that goes on sending this many messages over its rate is sent away.
_RATE_STRIKES: Final = 50
# A last word is taken within this time, or never.
_CLOSE_S: Final = 2.0


class _Transport(Protocol):
    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def get_write_buffer_size(self) -> int: ...
    def get_extra_info(self, name: str) -> Any: ...


class Sockets:
    """All client sockets of one process."""

    def __init__(self, hub: Hub, rest: Rest, origins: tuple[str, ...], budgets: Budgets) -> None:
        self._hub = hub
        self._rest = rest
        self._origins = origins
        self._budgets = budgets
        # Of this process: what is open elsewhere is bounded there.
        self._at_once = AtOnce(hub.limits.connections_per_ip)
        self._log = SparseLog()
        self.is_draining = False

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [web.get("/ws", self.serve), web.get("/ws/positions/{tokenId}", self.serve)]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket until it ends."""
        if self.is_draining:
            return problem(503, "chain_unavailable", "shutting down; try again", {"Retry-After": "2"})
        refused = refusal(request, self._origins)
        if refused is not None:
            return refused
        first: Channel | None = self._rest.position_channel(request) if "tokenId" in request.match_info else None
        ip = request.remote or "?"
        limits = self._hub.limits
        wait_s = await self._budgets.sockets.take(ip)
        if wait_s:
            # Before the handshake, which is what costs.
            text = f"at most {limits.connections_per_minute} new sockets a minute from an address"
            return problem(429, "rate", text, {"Retry-After": str(int(wait_s) + 1)})
        if first is not None:
            await self._rest.charge(first, ip)
        socket = web.WebSocketResponse(
            compress=False, max_msg_size=limits.message_bytes, autoclose=True, autoping=False
        )
        # Counted before anything is awaited, so that a burst can't slip through together.
        is_admitted = self._at_once.enter(ip)
        try:
            await socket.prepare(request)
            if not is_admitted:
                await socket.close(
                    code=CloseCode.TOO_MANY_CONNECTIONS, message=b"too many connections from your address"
                )
            else:
                await self._serve(request, socket, ip, first)
        finally:
            self._at_once.leave(ip)
        return socket

    async def _serve(self, request: web.Request, socket: web.WebSocketResponse, ip: str, first: Channel | None) -> None:
        transport = request.transport
        if transport is None:  # gone while it was being greeted
            return
        connection = request.protocol
        way = connection.open_shortcut() if isinstance(connection, Connection) else None
        session = self._open(transport, None if way is None else way.send)
        try:
            if first is not None:
                self._hub.subscribe(session, first, None, None)
            await self._read(socket, session, ip)
        finally:
            self._hub.close(session)
            if isinstance(connection, Connection):
                connection.close_shortcut()

    def _open(self, transport: _Transport, send_now: Callable[[bytes], int] | None) -> Session:
        def end(code: CloseCode) -> None:
            if code is CloseCode.SLOW:
                # What is unsent would be waited for: a slow client gets nothing more.
                transport.abort()
                return
            if not transport.is_closing():
                transport.write(b"\x88\x02" + int(code).to_bytes(2, "big"))
                transport.close()
                # Closing waits for what is unsent, and a client that keeps its window shut lets it wait forever.
                asyncio.get_running_loop().call_later(_CLOSE_S, transport.abort)

        session = Session(secrets.token_hex(8), transport, time.monotonic(), end, send_now)
        self._hub.open(session)
        return session

    async def _read(self, socket: web.WebSocketResponse, session: Session, ip: str) -> None:
        limits = self._hub.limits
        bucket = Bucket(limits.messages_per_s, limits.burst, time.monotonic())
        async for message in socket:
            if session.closing:
                return
            if message.type not in (WSMsgType.TEXT, WSMsgType.PING, WSMsgType.PONG):
                session.close(CloseCode.BAD_FRAME)
                return
            if self._hub.is_drowning(session):
                session.close(CloseCode.SLOW)
                return
            # Pings count like messages: a flood of them starves everyone else's loop.
            wait_s = bucket.take(time.monotonic())
            if wait_s:
                if bucket.strikes > _RATE_STRIKES:
                    session.close(CloseCode.RATE)
                    return
                if message.type is not WSMsgType.TEXT:
                    continue
                text = f"at most {limits.messages_per_s:g} messages a second, {limits.burst} at once"
                error = ClientError("rate", text, retry_after_ms=int(wait_s * 1000) + 1)
                self._hub.reply_error(session, error, _id_of(message.data))
                continue
            if message.type is WSMsgType.TEXT:
                await self._handle(session, ip, message.data)
            elif message.type is WSMsgType.PING:
                session.write(b"\x8a%c%b" % (len(message.data), message.data), time.monotonic())

    async def _handle(self, session: Session, ip: str, text: str) -> None:
        try:
            message = decode_client(text)
        except msgspec.DecodeError as error:
            self._hub.reply_error(session, ClientError("bad_request", str(error)), _id_of(text))
            return
        try:
            await self._do(session, ip, message)
        except ClientError as error:
            self._hub.reply_error(session, error, message.id)

    async def _do(self, session: Session, ip: str, message: ClientMessage) -> None:
        match message:
            case Subscribe():
                channel = parse_channel(message.channel, self._rest.known)
                await self._rest.charge(channel, ip)
                if not session.closing:
                    self._hub.subscribe(session, channel, message.id, message.cursor, latest=message.mode == "latest")
            case Unsubscribe():
                self._hub.unsubscribe(session, parse_channel(message.channel, self._rest.known), message.id)
            case Resync():
                self._log.info(
                    "client resyncs", client=session.name, channel=message.channel[:120], reason=message.reason[:200]
                )
                channel = parse_channel(message.channel, self._rest.known)
                await self._rest.charge(channel, ip)
                if not session.closing:
                    self._hub.resync(session, channel, message.id)
            case Pong():
                session.awaiting_pong_since = None
            case Auth() | Refresh():
                raise ClientError("bad_request", "this server takes no tokens: everything is public, just subscribe")
            case _:
                assert_never(message)


class _OnlyId(msgspec.Struct):
    id: ClientId | None = None


def _id_of(text: str) -> int | str | None:
    """Return the id of a message that may be anything, so that its sender can tell which one failed."""
    try:
        return msgspec.json.decode(text, type=_OnlyId).id
    except (msgspec.DecodeError, RecursionError):
        return None


async def tick_forever(hub: Hub, every_s: float = 0.1) -> None:
    """Give the hub the time. Laggards are looked after ten times a second."""
    while True:
        await asyncio.sleep(every_s)
        hub.tick()
