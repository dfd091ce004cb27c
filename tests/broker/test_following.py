"""How following a chain ends: told to, its wishes are taken back; by an error, that is what is heard of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from rtserver.broker.following import Follower
from rtserver.broker.ports import Place, Reading
from rtserver.broker.redis_link import RedisBroker
from rtserver.broker.steps import Heard

from .redis_server import RedisServer


class OneWish:
    """Wishes for one channel, and does what a test says once it listens."""

    def __init__(self, on_listen: Callable[[], None]) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.is_leased = False
        self._on_listen = on_listen

    def next_wishes(self) -> tuple[list[str], list[str]]:
        return (["x"], []) if not self.is_leased else ([], [])

    def announced(self, added: Iterable[str], removed: Iterable[str], until: float, *, are_all_there: bool) -> None:
        self.is_leased = True

    def listen(self) -> None:
        self._on_listen()

    def deafen(self) -> None:
        """Nothing is heard of anyway."""

    def hear(self, heard: Heard) -> None:
        raise AssertionError("nobody says anything")

    def next_read(self) -> dict[str, Place] | None:
        return None

    def read(self, reading: Reading) -> None:
        raise AssertionError("nothing was to be read")

    def read_failed(self) -> None:
        """Nothing was to be read."""

    def tend(self) -> None:
        self.wake()


async def test_an_error_is_not_taken_for_an_order_to_end_while_redis_is_away(redis: RedisServer) -> None:
    broker = RedisBroker(redis.url)

    def fail() -> None:
        redis.kill()
        raise ValueError("not expected")

    follower = Follower(name="a", link=broker.chain(1), relay=OneWish(fail), gateway="g")
    try:
        # Awaited by a group, as a gateway does: of a task that is only cancelled that would say nothing.
        with pytest.raises(ExceptionGroup) as raised:
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(follower.run())
        assert raised.group_contains(ValueError, match="not expected")
    finally:
        await broker.aclose()


async def test_whoever_is_told_to_end_takes_its_wishes_back(redis: RedisServer) -> None:
    broker = RedisBroker(redis.url)
    link = broker.chain(1)
    relay = OneWish(lambda: None)
    task = asyncio.create_task(Follower(name="a", link=link, relay=relay, gateway="g").run())
    try:
        async with asyncio.timeout(20):
            relay.wake()
            while (await link.interests()).added != {"x"}:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not (await link.interests()).added
    finally:
        await broker.aclose()
