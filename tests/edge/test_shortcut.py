"""Frames that go past the transport: each byte arrives once and in order, whatever the kernel takes at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvloop
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtserver.domain.chain import Header
from rtserver.domain.ids import BlockHash, ChainId, TokenId
from rtserver.domain.update import BlockUpdate
from rtserver.edge.connections import Connection, EdgeRunner
from rtserver.edge.proxies import Proxies
from rtserver.edge.shortcut import Shortcut, shortcut
from rtserver.hub.hub import Hub
from rtserver.hub.limits import Limits
from rtserver.hub.session import LAG_BYTES, Session
from rtserver.obs.metrics import Metrics
from rtserver.protocols.channels import Channel, PositionChannel

_CHAIN = ChainId(1)
_CHANNEL = PositionChannel(_CHAIN, "uniswap-v3", TokenId(1))
# As small as Linux lets them be: a few KiB, so that frames are taken in pieces.
_BUFFER = 1


class _NoEngine:
    def want(self, channel: Channel) -> None:
        """Be the hub's interest."""

    def unwant(self, channel: Channel) -> None:
        """Be the hub's interest."""


class _Ledger:
    """A transport that notes what it is given, in front of a real one."""

    def __init__(self, transport: asyncio.Transport, written: bytearray) -> None:
        self._transport = transport
        self._written = written
        self.write_calls = 0

    def write(self, data: bytes) -> None:
        self.write_calls += 1
        self._written += data
        self._transport.write(data)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()


class _Connection:
    """A session on a real TCP connection with tiny buffers, and what should arrive at its other end."""

    def __init__(self, hub: Hub, transport: asyncio.Transport, client: socket.socket, way: Shortcut) -> None:
        self.expected = bytearray()
        self.transport = transport
        self.ledger = _Ledger(transport, self.expected)
        self.short_writes = 0
        self.client = client
        self.arrived = bytearray()
        self.session = Session("client", self.ledger, 0.0, lambda code: None, self._noting(way.send))
        hub.open(self.session)

    def _noting(self, send: Callable[[bytes], int]) -> Callable[[bytes], int]:
        def noting(data: bytes) -> int:
            taken = 0
            try:
                taken = send(data)
            finally:
                self.short_writes += taken < len(data)
                self.expected.extend(data[:taken])
            return taken

        return noting

    async def read(self, size: int) -> None:
        """Let the client take up to so many bytes of what is there."""
        await asyncio.sleep(0)
        try:
            self.arrived += self.client.recv(size)
        except BlockingIOError:
            return

    async def read_all(self) -> None:
        """Read until everything that was written has arrived."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while len(self.arrived) < len(self.expected):
                self.arrived += await loop.sock_recv(self.client, 1 << 16)


@asynccontextmanager
async def _connected(hub: Hub) -> AsyncIterator[_Connection]:
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    accepted: asyncio.Future[tuple[asyncio.Transport, Shortcut]] = loop.create_future()

    class Accept(asyncio.Protocol):
        way: Shortcut | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.way = shortcut(transport)
            assert self.way is not None
            accepted.set_result((cast(asyncio.Transport, transport), self.way))

        def connection_lost(self, exc: Exception | None) -> None:
            assert self.way is not None
            self.way.end()

    server = await loop.create_server(Accept, sock=listener)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    client.setblocking(False)
    try:
        await loop.sock_connect(client, listener.getsockname())
        transport, way = await accepted
        yield _Connection(hub, transport, client, way)
        transport.abort()
    finally:
        client.close()
        server.close()
        await server.wait_closed()


class _Feed:
    """Blocks for one channel."""

    def __init__(self) -> None:
        self.hub = Hub(_NoEngine(), Limits(), Metrics(), clock=lambda: 0.0)
        self._number = 0

    def publish(self, **what: Any) -> None:
        self._number += 1
        block_hash, parent = (BlockHash(f"0x{number:064x}") for number in (self._number, self._number - 1))
        header = Header(number=self._number, hash=block_hash, parent_hash=parent, timestamp=0, logs_bloom=0)
        self.hub.publish(BlockUpdate(chain_id=_CHAIN, header=header, **what))

    def change(self, size: int) -> None:
        text = f'{{"text":"{self._number}{"x" * size}"}}'
        self.publish(patched={_CHANNEL.name: {"1": (1, text)}})


_LOOPS = (
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sampled_from([1, 300, 5_000, 20_000, 70_000])),
        st.tuples(st.just("read"), st.sampled_from([100, 3_000, 50_000])),
        st.tuples(st.just("resync"), st.just(0)),
        st.tuples(st.just("tick"), st.just(0)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("new_loop", _LOOPS)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(steps=_STEPS)
def test_every_byte_arrives_once_and_in_order(new_loop: Callable[[], Any], steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        feed = _Feed()
        async with _connected(feed.hub) as connection:
            feed.hub.when_open(_CHANNEL, lambda _: None)
            feed.publish(opened={_CHANNEL.name: {"1": {"text": ""}}})
            feed.hub.subscribe(connection.session, _CHANNEL, 1, None)
            for step, size in steps:
                match step:
                    case "change":
                        feed.change(size)
                    case "read":
                        await connection.read(size)
                    case "resync":
                        feed.hub.resync(connection.session, _CHANNEL, None)
                    case _:
                        feed.hub.tick()
                assert connection.transport.get_write_buffer_size() < 3 * LAG_BYTES
            await connection.read_all()
            assert connection.arrived == connection.expected
            feed.hub.close(connection.session)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("new_loop", _LOOPS)
def test_the_rest_of_a_frame_goes_the_transports_way_and_nothing_overtakes_it(new_loop: Callable[[], Any]) -> None:
    async def run() -> None:
        feed = _Feed()
        async with _connected(feed.hub) as connection:
            feed.hub.when_open(_CHANNEL, lambda _: None)
            feed.publish(opened={_CHANNEL.name: {"1": {"text": ""}}})
            feed.hub.subscribe(connection.session, _CHANNEL, 1, None)
            await connection.read_all()
            calls = connection.ledger.write_calls
            feed.change(10)
            assert connection.ledger.write_calls == calls, "an empty buffer is gone past"
            while not connection.transport.get_write_buffer_size():
                feed.change(20_000)
            assert connection.short_writes == 1
            calls = connection.ledger.write_calls
            feed.change(10)
            assert (connection.short_writes, connection.ledger.write_calls) == (1, calls + 1)
            await connection.read_all()
            assert connection.arrived == connection.expected

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("new_loop", _LOOPS)
def test_a_socket_that_was_closed_is_never_sent_to_under_its_next_owner(new_loop: Callable[[], Any]) -> None:
    async def run() -> None:
        feed = _Feed()
        feed.hub.when_open(_CHANNEL, lambda _: None)
        feed.publish(opened={_CHANNEL.name: {"1": {"text": ""}}})
        async with _connected(feed.hub) as connection:
            feed.hub.subscribe(connection.session, _CHANNEL, 1, None)
            number = connection.transport.get_extra_info("socket").fileno()
            connection.transport.abort()
            while connection.transport.get_extra_info("socket") is not None and _is_open(number):
                await asyncio.sleep(0)
            mine, theirs = socket.socketpair()
            with mine, theirs:
                assert number in (mine.fileno(), theirs.fileno()), "the number is in use again"
                mine.setblocking(False)
                theirs.setblocking(False)
                feed.change(10)
                for end in (mine, theirs):
                    with pytest.raises(BlockingIOError):
                        end.recv(1)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


def _is_open(number: int) -> bool:
    try:
        socket.socket(fileno=number).detach()
    except OSError:
        return False
    return True


async def test_a_way_that_was_let_go_is_an_error() -> None:
    mine, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=mine)
    way = shortcut(transport)
    assert way is not None
    assert way.send(b"abc") == 3
    way.end()
    way.end()
    with pytest.raises(OSError, match="Bad file descriptor"):
        way.send(b"def")
    assert not transport.is_closing()
    transport.write(b"ghi")
    assert theirs.recv(10) == b"abcghi"
    transport.abort()
    theirs.close()


async def test_a_connection_lets_go_of_its_socket_before_the_number_is_anothers() -> None:
    ways: list[Shortcut] = []
    lost = asyncio.Event()

    async def serve(request: web.Request) -> web.Response:
        assert isinstance(request.protocol, Connection)
        way = request.protocol.open_shortcut()
        assert way is not None
        ways.append(way)
        while request.transport is not None:
            await asyncio.sleep(0)
        lost.set()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", serve)
    runner = EdgeRunner(app, limits=Limits(), metrics=Metrics(), proxies=Proxies(()), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        _, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(30):
            while not ways:
                await asyncio.sleep(0)
            assert ways[0].send(b"HTTP") == 4
            writer.transport.abort()
            await lost.wait()
        with pytest.raises(OSError, match="Bad file descriptor"):
            ways[0].send(b"more")
    finally:
        await runner.cleanup()


async def test_a_transport_without_a_plain_socket_has_none() -> None:
    class Pipe:
        def get_extra_info(self, name: str) -> Any:
            return None

    class Encrypted:
        def get_extra_info(self, name: str) -> Any:
            return object()

    for transport in (Pipe(), Encrypted()):
        assert shortcut(transport) is None
