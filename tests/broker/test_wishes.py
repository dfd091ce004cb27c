"""Wishes that Redis does not hold as their gateway left them: it is told, and wishes anew."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from contracts.joined import joined, until
from hub.stage import channel

from rtserver.broker.leading import LeadLimits
from rtserver.broker.memory import MemoryLink
from rtserver.broker.ports import Interests
from rtserver.broker.redis_link import RedisBroker

from .redis_server import RedisServer

A, B = channel(1), channel(2)
TTL_MS = 10_000


async def test_wishes_of_another_version_are_wished_anew(redis_server: RedisServer) -> None:
    """A replica that took over may have an earlier set: too little would be closed under us, too much never."""
    broker = RedisBroker(redis_server.url, "wishes-version")
    link = broker.chain(1)
    try:
        assert not await link.announce("g", [A.name], [], TTL_MS)
        assert await link.announce("g", [], [], TTL_MS)
        assert await link.announce("g", [B.name], [A.name], TTL_MS)
        key, versions = "wishes-version:{1}:w:g", "wishes-version:{1}:gateways"
        await redis_server.command("SREM", key, B.name)
        await redis_server.command("SADD", key, A.name)
        await redis_server.command("HSET", versions, "g", "earlier")
        assert not await link.announce("g", [], [], TTL_MS)
        assert not (await link.interests({})).changed["g"]
        assert await link.announce("g", [B.name], [], TTL_MS)
        assert (await link.interests({})).changed["g"] == {B.name}
    finally:
        await broker.aclose()


async def test_an_emptied_broker_closes_nothing_before_gateways_could_wish_anew() -> None:
    """What an engine lets go of meanwhile costs calls to have again."""
    async with joined("memory", lambda: pytest.fail("no Redis here")) as ways:
        await ways.begin(1)
        await ways.subscribed(ways.client(), A)
        (writer,), (gateway,) = ways.writers, ways.gateways
        assert ways.make_link is not None
        link = ways.make_link()
        assert isinstance(link, MemoryLink)
        # It will not wish anew.
        await gateway.stop()
        writer.leader._limits = LeadLimits(lease_s=0.6, renew_s=0.1, look_s=0.01, patience_s=30.0, retry_s=0.02)
        run, looked = writer.leader._token, 0
        interests = link.interests

        async def look(known: Mapping[str, str]) -> Interests:
            nonlocal looked
            looked += 1
            return await interests(known)

        vars(link)["interests"] = look
        link.wipe()
        await until(lambda: writer.leader._token not in (run, None))
        looked = 0
        await until(lambda: looked > 3)
        assert A.name in writer.engine.open
        writer.leader._patient_until = 0.0
        await until(lambda: A.name not in writer.engine.open)


async def test_a_line_to_wishes_that_is_dead_without_a_word_is_taken_anew() -> None:
    async with joined("memory", lambda: pytest.fail("no Redis here")) as ways:
        await ways.begin(1)
        client = ways.client()
        await ways.subscribed(client, A, 1)
        (writer,) = ways.writers
        assert ways.make_link is not None
        link = ways.make_link()
        assert isinstance(link, MemoryLink)
        # Wishes are not read again by themselves before the test is over.
        writer.leader._limits = LeadLimits(lease_s=0.6, renew_s=0.1, look_s=300.0, silence_s=0.3, retry_s=0.02)
        writer.leader._look_now.set()
        await until(lambda: not writer.leader._look_now.is_set())
        link._wish_listeners.clear()
        await ways.subscribed(client, B, 2)
        assert B.name in writer.engine.open
