"""An engine's writer when what it writes to is away, full, or someone else's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from contracts.joined import Joined, joined, until
from hub.stage import channel

from rtserver.broker.memory import MemoryLink
from rtserver.broker.redis_link import RedisBroker

from .redis_server import RedisServer

A, B = channel(1), channel(2)


@pytest.fixture
async def ways() -> AsyncIterator[Joined]:
    """Engine and a gateway, joined in memory."""
    async with joined("memory", lambda: pytest.fail("no Redis here")) as one:
        await one.begin(1)
        yield one


async def test_steps_wait_while_the_broker_is_away(ways: Joined) -> None:
    assert ways.make_link is not None
    client = ways.client()
    await ways.subscribed(client, A)
    link = ways.make_link()
    assert isinstance(link, MemoryLink)
    (writer,) = ways.writers
    token = writer.leader._token
    link.is_away = True
    for number in range(10):
        ways.set_value(str(number), A)
    await until(lambda: writer.leader.report()["queuedSteps"] == 10)
    link.is_away = False
    await ways.converged()
    assert writer.leader._token == token
    assert client.replica.places[A.name][1] == 10


async def test_more_than_can_wait_is_told_by_a_new_run(ways: Joined) -> None:
    assert ways.make_link is not None
    client = ways.client()
    await ways.subscribed(client, A)
    epoch = client.replica.places[A.name][0]
    link = ways.make_link()
    assert isinstance(link, MemoryLink)
    (writer,) = ways.writers
    link.is_away = True
    for number in range(200):
        ways.set_value(str(number), A)
    assert writer.leader.report()["queuedSteps"] == 0
    link.is_away = False
    await ways.converged()
    assert client.replica.places[A.name][0] != epoch
    ways.set_value("on", A)
    await ways.converged()


async def test_a_full_redis_takes_whole_steps_or_none(redis: RedisServer) -> None:
    async with joined("redis", lambda: RedisBroker(redis.url)) as ways:
        await ways.begin(1)
        client = ways.client()
        await ways.subscribed(client, A, 1)
        await ways.subscribed(client, B, 2)
        ways.set_value("before", A, B)
        await ways.converged()
        await redis.command("CONFIG", "SET", "maxmemory", "1")
        (writer,) = ways.writers
        for number in range(5):
            ways.set_value(str(number), A, B)
        await until(lambda: writer.leader.report()["queuedSteps"] == 5)
        client.read()
        assert client.replica.states[A.name]["0"]["value"] == "before"
        await redis.command("CONFIG", "SET", "maxmemory", "0")
        await ways.converged()


async def test_a_redis_that_is_killed_and_comes_back_empty(redis: RedisServer) -> None:
    async with joined("redis", lambda: RedisBroker(redis.url, timeout_s=0.5)) as ways:
        await ways.begin(2)
        clients = [ways.client(0), ways.client(1)]
        for client in clients:
            await ways.subscribed(client, A)
        redis.kill()
        ways.set_value("meanwhile", A)
        await redis.start()
        ways.set_value("after", A)
        await ways.converged()


async def test_a_gateway_that_left_wishes_for_nothing(redis: RedisServer) -> None:
    async with joined("redis", lambda: RedisBroker(redis.url)) as ways:
        await ways.begin(2)
        stays, goes = ways.client(0), ways.client(1)
        await ways.subscribed(stays, A)
        await ways.subscribed(goes, B)
        gone = ways.gateways.pop()
        ways.clients.remove(goes)
        (writer,) = ways.writers
        await gone.stop()
        await until(lambda: B.name not in writer.engine.open)
        assert A.name in writer.engine.open
        ways.set_value("on", A)
        await ways.converged()
