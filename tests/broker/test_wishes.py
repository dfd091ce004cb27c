"""Wishes that Redis does not hold as their gateway left them: it is told, and wishes anew."""

from __future__ import annotations

import secrets
from contextlib import aclosing
from typing import Any

import pytest
from contracts.joined import joined, until
from hub.stage import CHAIN, channel

from rtserver.broker.leading import LeadLimits
from rtserver.broker.memory import MemoryLink
from rtserver.broker.ports import Interests
from rtserver.broker.redis_link import RedisBroker, RedisLink

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
        await redis_server.command("HSET", "wishes-version:{1}:gateways", "g", "earlier")
        assert not await link.announce("g", [], [], TTL_MS)
        assert not (await link.interests()).added
        assert await link.announce("g", [B.name], [], TTL_MS)
        assert (await link.interests()).added == {B.name}
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

        async def look(since: str = "") -> Interests:
            nonlocal looked
            looked += 1
            return await interests(since)

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


async def _calls(redis: RedisServer, *commands: str) -> int:
    stats: Any = await redis.command("INFO", "commandstats")
    return sum(stats.get(f"cmdstat_{one}", {}).get("calls", 0) for one in commands)


async def test_a_thousand_changes_at_once_are_a_few_calls(redis_server: RedisServer) -> None:
    """Each announcement renews its lease, which is one ZADD that nothing else does."""
    prefix = f"t{secrets.token_hex(6)}"
    crowd = [channel(number) for number in range(1000)]
    async with joined("redis", lambda: RedisBroker(redis_server.url, prefix)) as ways:
        relay = ways.add_gateway().relay
        assert relay is not None
        before = await _calls(redis_server, "zadd")
        for one in crowd:
            relay.want(one)
        await until(lambda: relay.next_wishes() == ([], []))
        for one in crowd[:500]:
            relay.unwant(one)
        for number in range(500):
            relay.want(channel(2000 + number))
        await until(lambda: relay.next_wishes() == ([], []))
        # Two, and on a slow machine renewals.
        assert 2 <= await _calls(redis_server, "zadd") - before <= 20
        link = RedisBroker(redis_server.url, prefix).chain(CHAIN)
        assert len((await link.interests()).added) == 1000
        await link._nodes.aclose()


async def test_an_engine_looks_at_all_gateways_in_one_call(redis_server: RedisServer) -> None:
    broker = RedisBroker(redis_server.url, f"t{secrets.token_hex(6)}")
    async with aclosing(broker):
        link = broker.chain(1)
        at = (await link.interests()).cursor
        for gateway in range(200):
            await link.announce(f"g{gateway}", [f"c{gateway}", "common"], [], TTL_MS)
        before = await _calls(redis_server, "evalsha", "eval", "smembers", "exists", "hgetall")
        found = await link.interests(at)
        assert await _calls(redis_server, "evalsha", "eval", "smembers", "exists", "hgetall") - before == 1
        assert (found.is_whole, found.gateways, len(found.added)) == (False, 200, 201)
        assert await link.close(await _token(link), ["common", "c7", "other"]) == ["other"]


async def test_more_changes_than_are_kept_are_read_as_a_whole(redis_server: RedisServer) -> None:
    broker = RedisBroker(redis_server.url, f"t{secrets.token_hex(6)}")
    async with aclosing(broker):
        link = broker.chain(1)
        at = (await link.interests()).cursor
        for number in range(1100):
            await link.announce("g", [f"c{number}"], [f"c{number - 2}"], TTL_MS)
        found = await link.interests(at)
        assert (found.is_whole, found.added) == (False, {"c1098", "c1099"})
        await redis_server.command("XTRIM", link._prefix + "changes", "MAXLEN", "1")
        again = await link.interests(at)
        assert (again.is_whole, again.added, again.cursor) == (True, {"c1098", "c1099"}, found.cursor)


async def _token(link: RedisLink) -> str:
    token = await link.acquire("a1", TTL_MS)
    assert token is not None
    return token
