"""Connections that bring nothing: how many there may be, and how long."""

from __future__ import annotations

import asyncio
import socket

import pytest

from rtserver.hub.limits import Limits

from .raw import HANDSHAKE, exchange, get, opened, read_reply
from .served import Served, served


async def _until_none(server: Served) -> None:
    async with asyncio.timeout(60):
        while server.connections:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", get(b"/", b"Content-Length: 5") + b"12"]
)
async def test_a_request_that_never_ends_ends(begun: bytes) -> None:
    """Hundreds of them are gone as well."""
    async with served(limits=Limits(connections_per_ip=1000), idle_s=0.5) as server:
        opening = [await opened(server.port) for _ in range(300)]
        for _, writer in opening:
            writer.write(begun)
        await _until_none(server)
        for _, writer in opening:
            writer.close()


async def test_trickling_is_no_way_to_stay() -> None:
    async with served(idle_s=0.5) as server:
        reader, writer = await opened(server.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        ended = asyncio.ensure_future(reader.read())
        while not ended.done():
            writer.write(b"X")
            await asyncio.wait([ended], timeout=0.05)
        await _until_none(server)
        writer.close()


async def test_between_requests_a_connection_stays(server: Served) -> None:
    reader, writer = await opened(server.port)
    for _ in range(3):
        writer.write(get(b"/health/live"))
        assert (await read_reply(reader)).status == 200
    writer.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux tells")
async def test_who_takes_nothing_is_gone() -> None:
    """While the server waits for a client's window neither its handler nor a closed transport would end."""
    async with served(untaken_s=0.5) as server:
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect(("127.0.0.1", server.port))
            raw.setblocking(False)
            raw.send(get(b"/static/rtserver-client.js") * 500)
            async with asyncio.timeout(10):
                while not server.connections:
                    await asyncio.sleep(0)
            await _until_none(server)


async def test_an_address_has_room_for_its_browsers_and_no_more() -> None:
    async with served(limits=Limits(connections_per_ip=2)) as server:
        kept = [await opened(server.port) for _ in range(16)]
        for reader, writer in kept:
            writer.write(get(b"/health/live"))
            assert (await read_reply(reader)).status == 200
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await exchange(server.port, get(b"/health/live"))
        for _, writer in kept:
            writer.close()
        await _until_none(server)
        assert (await exchange(server.port, get(b"/health/live"))).status == 200


async def test_a_trusted_proxy_has_as_many_as_it_likes() -> None:
    async with served(limits=Limits(connections_per_ip=1), trusted=("127.0.0.0/8",)) as server:
        kept = [await opened(server.port) for _ in range(30)]
        for reader, writer in kept:
            writer.write(get(b"/health/live"))
            assert (await read_reply(reader)).status == 200
            writer.close()


async def test_handshakes_that_fail_leave_nothing(server: Served) -> None:
    for _ in range(50):
        reply = await exchange(server.port, HANDSHAKE.replace(b"13", b"12"))
        assert reply.status == 426
    await _until_none(server)
    assert len(server.sockets._at_once) == 0
