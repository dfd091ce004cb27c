"""New positions' windows are continued from records: when these are known to be of the chain, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from rtserver.domain.chain import Header
from rtserver.domain.errors import RetryableError
from rtserver.domain.ids import BlockHash, TokenId
from rtserver.history.reading import parts_until
from rtserver.history.seeding import Seeding
from rtserver.protocols.earning import PastSample

from .test_recorder import Book

HEAD = Header(number=1, hash=BlockHash("0x1"), parent_hash=BlockHash("0x0"), timestamp=10**9, logs_bloom=0)
ROW = PastSample(timestamp=5, earned0=1, earned1=2, value_cents=3)


class Past:
    """Records that answer when the test says so."""

    def __init__(self) -> None:
        self.asked: list[list[TokenId]] = []
        self.error: Exception | None = None
        self.news = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def samples(
        self, protocol: str, token_ids: Sequence[TokenId], now: int
    ) -> Mapping[TokenId, list[PastSample]]:
        self.asked.append(list(token_ids))
        self.news.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {token_id: [ROW] for token_id in token_ids if token_id % 2}


class Scene:
    def __init__(self) -> None:
        self.book, self.past, self.is_proved = Book(), Past(), True
        self.seeding = Seeding(
            name="one",
            books={"uniswap-v3": self.book},
            past=self.past,
            is_proved=lambda: self.is_proved,
            head=lambda: HEAD,
        )

    async def turn(self) -> None:
        """Publish a step and let the seeding do what it can."""
        self.seeding.published()
        for _ in range(20):
            await asyncio.sleep(0)


async def test_positions_are_seeded_a_few_at_a_time() -> None:
    scene = Scene()
    scene.book.new = [TokenId(token_id) for token_id in range(65)]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(scene.seeding.run())
        await scene.turn()
        assert [len(ids) for ids in scene.past.asked] == [30, 30, 5]
        assert (scene.book.seeds[TokenId(3)], scene.book.seeds[TokenId(4)]) == ([ROW], [])
        await scene.turn()
        assert len(scene.past.asked) == 3
        task.cancel()


async def test_nothing_is_taken_that_may_be_of_another_branch() -> None:
    scene = Scene()
    scene.book.new = [TokenId(1)]
    scene.is_proved = False
    async with asyncio.TaskGroup() as group:
        task = group.create_task(scene.seeding.run())
        await scene.turn()
        assert scene.past.asked == []
        scene.is_proved = True
        scene.past.gate.clear()
        await scene.turn()
        assert len(scene.past.asked) == 1
        scene.seeding.reorged()
        scene.past.gate.set()
        await scene.turn()
        # The first answer was of before the turn; the next one counts.
        assert len(scene.past.asked) == 2
        assert scene.book.seeds == {TokenId(1): [ROW]}
        task.cancel()


async def test_a_database_that_fails_is_left_alone_for_a_while() -> None:
    scene = Scene()
    scene.book.new = [TokenId(1)]
    scene.past.error = RetryableError("locked")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(scene.seeding.run())
        for _ in range(5):
            await scene.turn()
        assert len(scene.past.asked) == 1
        assert scene.book.seeds == {}
        task.cancel()


def test_parts_touch_and_reach_over_each_window() -> None:
    hour, day, week = parts_until(10_000_000)
    assert (hour[1], day[1], week[1]) == (10_000_000, hour[0], day[0])
    assert [10_000_000 - part[0] - part[2] for part in (hour, day, week)] == [3600, 86_400, 604_800]
    assert sum((until - after) // step for after, until, step in (hour, day, week)) < 70
