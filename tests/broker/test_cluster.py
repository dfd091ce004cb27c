"""What only a Cluster does: masters that fail over, slots that move, nodes that are away."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from contracts.joined import Joined, joined, until
from contracts.test_link import change, opening, snapshot
from hub.stage import CHAIN, Client, channel

from rtserver.broker.checks import look_at_redis
from rtserver.broker.ports import BrokerAway
from rtserver.broker.redis_link import RedisBroker
from rtserver.domain.errors import ConfigError

from .redis_cluster import RedisNodesServer
from .redis_server import RedisServer

A, B, C = channel(1), channel(2), channel(3)
KEY = f"rtserver:{{{CHAIN}}}:owner"
# Of three, the one that has the chain's slot.
OURS = 1


@asynccontextmanager
async def cluster(folder: Path, *, replicas: bool = False, spares: int = 0) -> AsyncIterator[RedisNodesServer]:
    nodes = RedisNodesServer(folder, replicas_of=[OURS] if replicas else [], spares=spares, timeout_ms=1000)
    try:
        await nodes.start()
        assert await nodes.master_of(KEY) is nodes.nodes[OURS]
        yield nodes
    finally:
        await nodes.end()


@asynccontextmanager
async def served(nodes: RedisNodesServer) -> AsyncIterator[tuple[Joined, list[Client]]]:
    """Engine, two gateways and a client at each, over a Cluster."""
    async with joined("cluster", lambda: RedisBroker(nodes.url, timeout_s=0.5)) as ways:
        await ways.begin(2)
        clients = [ways.client(0), ways.client(1)]
        for client in clients:
            await ways.subscribed(client, A, 1)
            await ways.subscribed(client, B, 2)
        ways.set_value("before", A, B)
        await ways.converged()
        yield ways, clients


async def are_right(ways: Joined, clients: list[Client]) -> None:
    """Wait until all is the truth, also after one more block; nobody was led back to an earlier block on the way."""
    await ways.converged()
    ways.set_value("on", A, B)
    await ways.converged()
    for client in clients:
        assert client.replica.numbers == sorted(client.replica.numbers)


async def fails_over(nodes: RedisNodesServer, ways: Joined) -> None:
    """Make blocks until the replica holds the slot."""
    for number in range(4000):
        ways.set_value(f"meanwhile {number}", A, B)
        if await nodes.master_of(KEY) is nodes.nodes[-1]:
            return
        await asyncio.sleep(0.02)
    pytest.fail("no failover")


async def test_a_master_fails_over(tmp_path: Path) -> None:
    """One that hangs instead is a row of the table of faults."""
    async with cluster(tmp_path, replicas=True) as nodes, served(nodes) as (ways, clients):
        nodes.nodes[OURS].kill()
        await fails_over(nodes, ways)
        await are_right(ways, clients)
        await nodes.nodes[OURS].start()
        await are_right(ways, clients)


@pytest.mark.parametrize("to", [0, 3])
async def test_a_slot_moves_while_it_is_written_and_read(tmp_path: Path, to: int) -> None:
    """To a node that has others already, and to one that is new and has none."""
    async with cluster(tmp_path, spares=1) as nodes, served(nodes) as (ways, clients):
        epochs = [client.replica.places[A.name][0] for client in clients]
        source, target = nodes.nodes[OURS], nodes.nodes[to]
        keys = await nodes.begin_move(KEY, target)
        half = [key for key in keys if key.endswith((":owner", ":head", f"h:{A.name}"))]
        assert len(half) == 3
        ways.set_value("while the slot is open", A, B)
        await ways.converged()
        await nodes.move(source, target, half)
        for number in range(3):
            ways.set_value(f"half of it is there {number}", A, B)
        newcomer = ways.client(1)
        newcomer.subscribe(C, 3)
        (writer,) = ways.writers
        await until(lambda: writer.leader.report()["queuedSteps"])
        await nodes.move(source, target, [key for key in keys if key not in half])
        await nodes.end_move(KEY, target)
        await are_right(ways, [*clients, newcomer])
        assert newcomer.replica.states[C.name]
        # What waited was told: nothing had to begin anew.
        assert [client.replica.places[A.name][0] for client in clients] == epochs


@pytest.mark.parametrize("moved", ["h:y", "s:y"])
async def test_a_step_is_written_whole_or_not_at_all_while_its_slot_moves(
    redis_cluster: RedisNodesServer, moved: str
) -> None:
    prefix = f"t{secrets.token_hex(6)}"
    async with aclosing(RedisBroker(redis_cluster.url, prefix)) as broker:
        # Another slot than that of the tests beside this one.
        link, key = broker.chain(777), f"{prefix}:{{777}}:"
        token = await link.acquire("a1", 60_000)
        assert token is not None
        await link.publish(token, 1, opening("x", "y", begins_run=True))
        await link.publish(token, 2, change(1, "x", "y"))
        source = await redis_cluster.master_of(key)
        target = next(node for node in redis_cluster.nodes if node is not source)
        keys = await redis_cluster.begin_move(key, target)
        await redis_cluster.move(source, target, [key + moved])
        step = change(2, "x", "y")
        step.snapshots["y"] = snapshot(2)
        with pytest.raises(BrokerAway):
            await link.publish(token, 3, step)
        assert await source.command("XLEN", f"{key}h:x") == 1
        with pytest.raises(BrokerAway):
            await link.read({"x": None, "y": None})
        await redis_cluster.move(source, target, [one for one in keys if one != key + moved])
        await redis_cluster.end_move(key, target)
        await link.publish(token, 3, step)
        reading = await link.read({"x": ("e1", 0), "y": ("e1", 0)})
        assert [[one.seq for one in held.entries] for held in reading.channels.values()] == [[1, 2], [1, 2]]


async def test_a_node_with_other_slots_is_not_missed(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes, served(nodes) as (ways, clients):
        nodes.nodes[0].kill()
        late = ways.add_gateway()
        client = ways.client(2)
        await ways.subscribed(client, A)
        await are_right(ways, [*clients, client])
        assert late.relay is not None and late.relay.is_live


async def test_what_the_address_says_has_to_be_there(
    redis_server: RedisServer, redis_cluster: RedisNodesServer
) -> None:
    single = redis_cluster.nodes[0].url
    for url, said in {
        f"redis+cluster://127.0.0.1:{redis_server.port}": "not a Cluster: its address is redis://",
        single: "is a Cluster: its address is redis\\+cluster://",
        "redis+cluster://:secret@127.0.0.1:1,127.0.0.1:2": "no Redis answers at redis\\+cluster://127.0.0.1:1,",
    }.items():
        with pytest.raises(ConfigError, match=said) as caught:
            await look_at_redis(url)
        assert "secret" not in str(caught.value)
