"""Which node of a Cluster is asked and listened to when what is known of them is out of date, and for how long."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot

from rtserver.broker.ports import BrokerAway
from rtserver.broker.redis_nodes import RedisNodes, translated
from rtserver.demo.ports import free_port

from .redis_cluster import RedisNodesServer

# Nothing is waited out: what hangs is found to hang by other means, or the test fails.
LONG_S = 60.0


@pytest.fixture
async def nodes(redis_cluster: RedisNodesServer) -> AsyncIterator[RedisNodes]:
    """A client that has asked who has what."""
    one = RedisNodes(redis_cluster.url, LONG_S)
    try:
        await one.exists("anything")
        yield one
    finally:
        await one.aclose()


@asynccontextmanager
async def one_that_hangs() -> AsyncIterator[int]:
    """Accept connections and say nothing, as a frozen process or a machine that is gone; yield the port."""
    gone = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.transport.abort()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        gone.set()
        server.close()


def believe(nodes: RedisNodes, key: str, port: int) -> None:
    """Have a client take another node for the master of a key: as if it had been that until a moment ago."""
    assert isinstance(nodes.client, RedisCluster)
    manager = nodes.client.nodes_manager
    node = ClusterNode("127.0.0.1", port, "primary", **manager.connection_kwargs)
    manager.nodes_cache[node.name] = manager.startup_nodes[node.name] = node
    manager.slots_cache[key_slot(key.encode())] = [node]


async def test_a_listener_finds_by_itself_that_the_node_is_gone(nodes: RedisNodes) -> None:
    """Nothing else has to fail first."""
    channel = f"t{secrets.token_hex(6)}"
    believe(nodes, channel, free_port())
    with pytest.raises(BrokerAway):
        await anext(nodes.listen(channel))
    async with asyncio.timeout(LONG_S / 2), aclosing(nodes.listen(channel)) as heard:  # type: ignore[type-var]
        assert await anext(heard) is None


async def test_a_listener_does_not_wait_for_a_node_that_hangs(nodes: RedisNodes) -> None:
    channel = f"t{secrets.token_hex(6)}"
    async with one_that_hangs() as port:
        believe(nodes, channel, port)
        async with asyncio.timeout(LONG_S / 2), aclosing(nodes.listen(channel)) as heard:  # type: ignore[type-var]
            assert await anext(heard) is None


async def test_when_all_nodes_were_replaced_those_of_the_address_are_asked_again(nodes: RedisNodes) -> None:
    assert isinstance(nodes.client, RedisCluster)
    manager = nodes.client.nodes_manager
    for known in (manager.startup_nodes, manager.nodes_cache):
        for node in known.values():
            await node.disconnect()
        known.clear()
    believe(nodes, "a", free_port())
    # It is gone; nobody else is known; those of the address are.
    for _ in range(2):
        with pytest.raises(BrokerAway):
            await nodes.exists("a")
    assert not await nodes.exists("a")


async def test_a_subscription_ends_when_nothing_was_said_for_too_long(nodes: RedisNodes) -> None:
    async def said() -> list[bytes | None]:
        return [payload async for payload in nodes.listen(f"t{secrets.token_hex(6)}", 0.05)]

    async with asyncio.timeout(LONG_S / 2):
        with pytest.raises(BrokerAway, match="nothing heard for"):
            await said()


async def test_who_was_not_told_to_end_does_not_end_with_another() -> None:
    shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        async with translated():
            await shared

    first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(BrokerAway):
        await second


async def test_a_connection_that_broke_under_a_command_is_away() -> None:
    """uvloop says so by an error of its own, and the library hands it on."""
    near, far = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    far.close()
    transport.abort()
    while near.fileno() != -1:
        await asyncio.sleep(0)
    with pytest.raises(BrokerAway):
        async with translated():
            transport.writelines([b"EXISTS x"])


async def test_an_error_of_our_own_is_no_outage() -> None:
    with pytest.raises(RuntimeError, match="ours"):
        async with translated():
            raise RuntimeError("ours")
