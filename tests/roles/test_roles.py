"""Engine, standby, two gateways and Redis as real processes: exact values, resuming elsewhere, and what is killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from hub.replica import Replica
from redis.asyncio import Redis

from rtserver.client import RtClient
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.demo.showcase import mint_exhibits

from .processes import Deployed, Process, deployed, eventually, mining


@pytest.fixture
async def world(lab: Lab, tmp_path: Path) -> AsyncIterator[Deployed]:
    """An engine in charge and two gateways that serve what it says; a market, and no block by itself."""
    exhibits = await mint_exhibits(lab, seed=1)
    market = Market(lab, seed=1)
    await market.steps(20)
    async with deployed(lab, tmp_path) as one:
        one.owner = exhibits[0].owner
        first = one.start("engine")
        gateways = [one.start("gateway"), one.start("gateway")]
        await first.ready()
        await one.engine()
        await asyncio.gather(*(gateway.ready() for gateway in gateways))
        yield one


def gateways_of(world: Deployed) -> list[Process]:
    return [process for process in world.processes if process.role == "gateway"]


def owner_channel(world: Deployed) -> str:
    return f"owner:{world.lab.deployment.chain_id}:{world.owner}"


async def at_head(world: Deployed, *processes: Process) -> None:
    """Wait until processes are at the chain's head."""
    await world.lab.catch_up()
    async with asyncio.timeout(40):
        while True:
            heads = [(await process.chain()).get("head", {}).get("hash") for process in processes]
            if all(head == world.lab.head.hash for head in heads):
                return
            await asyncio.sleep(0.05)


async def same_everywhere(world: Deployed, clients: list[RtClient]) -> None:
    """Wait until each client's copy is what both gateways say of the head."""
    gateways = [one for one in gateways_of(world) if one.child.returncode is None]
    await at_head(world, *gateways)
    async with asyncio.timeout(30):
        while True:
            answers = [await gateway.snapshot(owner_channel(world)) for gateway in gateways]
            assert all(answer["cursor"] == answers[0]["cursor"] for answer in answers), answers
            name = answers[0]["channel"]
            if all(client.states.get(name) == answers[0]["state"] for client in clients):
                assert answers[0]["state"]
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def clients_of(world: Deployed) -> AsyncIterator[list[RtClient]]:
    """A client at each gateway, subscribed to an owner."""
    first, second = gateways_of(world)
    async with RtClient(first.ws_url) as one, RtClient(second.ws_url) as other:
        for client in (one, other):
            await (await client.subscribe(owner_channel(world))).opened()
        yield [one, other]


async def test_every_value_at_a_gateway_is_the_chains(world: Deployed) -> None:
    async with clients_of(world) as clients, mining(world):
        await asyncio.gather(*(world.verify(gateway) for gateway in gateways_of(world)))
    await same_everywhere(world, clients)


async def test_a_client_resumes_at_the_other_gateway(world: Deployed) -> None:
    first, second = gateways_of(world)
    channel = owner_channel(world)
    replica = Replica()
    async with ClientSession() as session:
        async with session.ws_connect(first.ws_url) as socket:
            await socket.send_json({"type": "subscribe", "id": 1, "channel": channel})
            await _take_until(socket, replica, "subscribed")
        ((name, cursor),) = replica.cursors.items()
        market = Market(world.lab, seed=3)
        await market.steps(3)
        await at_head(world, first, second)
        async with session.ws_connect(second.ws_url) as socket:
            await socket.send_json({"type": "subscribe", "id": 2, "channel": channel, "cursor": cursor})
            answer = await _take_until(socket, replica, "subscribed")
    assert answer["how"] == "resumed"
    assert replica.states[name] == (await second.snapshot(channel))["state"]


async def _take_until(socket: Any, replica: Replica, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            message = json.loads(await socket.receive_str())
            replica.take([message])
            if message["type"] == kind:
                return dict(message)


async def test_a_standby_takes_over_from_an_engine_that_was_killed(world: Deployed) -> None:
    standby = world.start("engine")
    await standby.ready()
    async with clients_of(world) as clients:
        await same_everywhere(world, clients)
        async with mining(world):
            first = await world.engine()
            assert first is not standby
            first.child.kill_now()
            assert await world.engine() is standby
            await asyncio.gather(*(world.verify(gateway) for gateway in gateways_of(world)))
        await same_everywhere(world, clients)


async def test_an_engine_that_slept_through_its_lease_can_not_write(world: Deployed) -> None:
    standby = world.start("engine")
    await standby.ready()
    async with clients_of(world) as clients:
        await same_everywhere(world, clients)
        first = await world.engine()
        async with mining(world):
            first.freeze()
            assert await world.engine() is standby
            first.thaw()
            await eventually(lambda: "not in charge any more" in first.log.read_text())
            await asyncio.gather(*(world.verify(gateway) for gateway in gateways_of(world)))
        assert (await first.chain())["inCharge"] is False
        assert await world.engine() is standby
        await same_everywhere(world, clients)


async def test_a_redis_that_comes_back_empty_is_filled_again(world: Deployed) -> None:
    async with clients_of(world) as clients:
        await same_everywhere(world, clients)
        world.redis.kill()
        # What gateways hold is still served, with its age.
        before = world.lab.head
        await world.lab.mine()
        for gateway in gateways_of(world):
            answer = await gateway.snapshot(owner_channel(world))
            assert answer["block"]["hash"] == before.hash
            assert answer["ageMs"] >= 0
        await world.redis.start()
        async with mining(world):
            await world.engine()
            await asyncio.gather(*(world.verify(gateway) for gateway in gateways_of(world)))
        await same_everywhere(world, clients)


async def test_a_redis_that_hangs_leaves_no_gap(world: Deployed) -> None:
    async with clients_of(world) as clients:
        await same_everywhere(world, clients)
        world.redis.freeze()
        market = Market(world.lab, seed=5)
        await market.steps(4)
        first = await world.engine()
        async with asyncio.timeout(30):
            while (await first.chain())["queuedSteps"] < 2:
                await asyncio.sleep(0.05)
        world.redis.thaw()
        await market.steps(2)
        await same_everywhere(world, clients)


async def test_what_nobody_watches_any_more_leaves_redis(lab: Lab, tmp_path: Path) -> None:
    async with deployed(lab, tmp_path) as world:
        with world.settings.open("a") as file:
            file.write("\n[limits]\nlinger_s = 0.1\n")
        engine, gateway = world.start("engine"), world.start("gateway")
        await asyncio.gather(engine.ready(), world.engine())
        await gateway.ready()
        async with RtClient(gateway.ws_url) as client:
            await (await client.subscribe(owner_channel(world))).opened()
            async with Redis.from_url(world.redis.url) as redis:
                key = f"rtserver:{{{lab.deployment.chain_id}}}:channels"
                name = next(iter(client.states))
                assert await redis.sismember(key, name)
        async with Redis.from_url(world.redis.url) as redis, asyncio.timeout(40):
            while await redis.sismember(key, name):
                await asyncio.sleep(0.05)
            assert not await redis.exists(f"rtserver:{{{lab.deployment.chain_id}}}:h:{name}")


def test_a_gateway_without_its_redis_says_so_and_keeps_the_password_to_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rtserver", "serve", "--role", "gateway", "--port", "0"]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RTSERVER_REDIS__URL": "redis://:secret@127.0.0.1:1",
    }
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no Redis answers at redis://127.0.0.1:1" in done.stderr
    assert "secret" not in done.stderr


async def earned_everywhere(gateway: Process, owners: Sequence[str]) -> None:
    """Wait until of each owner's positions it is told what they earned, which only their own engine can tell."""
    async with ClientSession() as session, asyncio.timeout(30):
        for owner in owners:
            while True:
                async with session.get(f"{gateway.url}/api/v1/positions/summary?owner={owner}") as response:
                    positions = (await response.json()).get("positions", [])
                if positions and all(position["earnedAmountUSD"] is not None for position in positions):
                    break
                await asyncio.sleep(0.05)


async def test_engines_that_share_a_chain(lab: Lab, tmp_path: Path) -> None:
    """By two, then by one that took the place of both; what disagrees in their number ends with an error."""
    await mint_exhibits(lab, seed=1)
    market = Market(lab, seed=1)
    await market.steps(10)
    async with deployed(lab, tmp_path) as world:
        first, second = world.start("engine", "--shard", "0/2"), world.start("engine", "--shard", "1/2")
        gateway = world.start("gateway")
        await asyncio.gather(first.ready(), second.ready(), gateway.ready())
        async with RtClient(gateway.ws_url) as client:
            for owner in lab.owners[:3]:
                await (await client.subscribe(f"owner:{lab.deployment.chain_id}:{owner}")).opened()
            async with mining(world):
                await world.verify(gateway)
            for engine in (first, second):
                chain = await engine.chain()
                assert chain["inCharge"] and chain["shardCount"] == 2
            await earned_everywhere(gateway, lab.owners[:3])

            other = world.start("engine", "--shard", "0/3")
            await eventually(lambda: other.child.returncode is not None)
            assert other.child.returncode == 2
            assert "spread over 2 by engines that are running, and here over 3" in other.log.read_text()

            await asyncio.gather(first.child.end(timeout_s=6.0), second.child.end(timeout_s=6.0))
            alone = world.start("engine")
            await asyncio.gather(alone.ready(), world.engine())
            left: Any = await world.redis.command("KEYS", f"rtserver:{{{lab.deployment.chain_id}:?/2}}:*")
            assert not [key for key in left if b":s:" in key or b":h:" in key]
            await eventually(lambda: "shared in another way" in gateway.log.read_text())
            async with mining(world):
                await world.verify(gateway)
            await earned_everywhere(gateway, lab.owners[:3])
            await at_head(world, gateway)
            for owner in lab.owners[:3]:
                name = f"owner:{lab.deployment.chain_id}:{owner}"
                answer = await gateway.snapshot(name)
                async with asyncio.timeout(30):
                    while client.states.get(answer["channel"]) != answer["state"]:
                        await asyncio.sleep(0.02)
