"""What is recorded when: changes of liquidity at their block, all else in turn, nothing while anything is unsettled."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from store.records import KIND, block_hash, sample

from rtserver.domain.chain import BlockRef, Header, Reorged
from rtserver.domain.ids import BlockHash, ChainId, TokenId
from rtserver.history.backlog import Backlog
from rtserver.history.recorder import Recorder
from rtserver.obs.metrics import Metrics
from rtserver.protocols.earning import PastSample, Sample
from rtserver.store.records import Record


def header(number: int, at: int, branch: int = 0) -> Header:
    return Header(number=number, hash=block_hash(number, branch), parent_hash=BlockHash(""), timestamp=at, logs_bloom=0)


class Book:
    """A book whose samples are what the test says."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}
        self.active: dict[int, bool] = {}
        self.resized: set[TokenId] = set()
        self.turned: dict[TokenId, bool | None] = {}
        self.asked = 0
        self.new: list[TokenId] = []
        self.seeds: dict[TokenId, list[PastSample]] = {}

    def add(self, *token_ids: int, is_active: bool = True) -> None:
        for token_id in token_ids:
            self.values[token_id] = 1
            self.turn(token_id, is_active)

    def turn(self, token_id: int, is_active: bool) -> None:
        self.active[token_id] = self.turned[TokenId(token_id)] = is_active

    def samples(self, token_ids: Iterable[TokenId]) -> list[Sample]:
        self.asked += 1
        return [
            sample(token_id, self.values[token_id], is_active=self.active[token_id])
            for token_id in token_ids
            if token_id in self.values
        ]

    def await_seeds(self) -> None:
        pass

    def unseeded(self, limit: int) -> list[TokenId]:
        return self.new[:limit]

    def seed(self, token_id: TokenId, samples: Sequence[PastSample]) -> None:
        self.new.remove(token_id)
        self.seeds[token_id] = list(samples)

    def price_of(self, token_id: TokenId) -> str | None:
        return "2"

    def take_resized(self) -> set[TokenId]:
        taken, self.resized = self.resized, set()
        return taken

    def take_turned(self) -> dict[TokenId, bool | None]:
        taken, self.turned = self.turned, {}
        return taken


class Scene:
    def __init__(self) -> None:
        self.book, self.backlog = Book(), Backlog(10_000)
        self.is_at_rest = True
        self.recorder = Recorder(
            name="one", books={KIND: self.book}, backlog=self.backlog, every_s=60,
            is_at_rest=lambda: self.is_at_rest, metrics=Metrics(),
        )  # fmt: skip

    async def block(self, number: int, at: int, branch: int = 0) -> list[Record]:
        """Publish a head; return what was recorded by the time that nothing is due any more."""
        self.recorder.published(header(number, at, branch))
        return await self.taken()

    async def taken(self) -> list[Record]:
        for _ in range(1000):
            await asyncio.sleep(0)
        batch = self.backlog.take(10_000)
        self.backlog.done()
        return sorted(batch.records, key=lambda record: record.sample.token_id)

    def reorg(self, to: int | None, *dropped: Header) -> None:
        ancestor = None if to is None else BlockRef(number=to, hash=block_hash(to))
        event = Reorged(chain_id=ChainId(1), ancestor=ancestor, dropped=dropped, blocks=(header(99, 99, 1),))
        self.recorder.reorged(event)


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    task = asyncio.create_task(made.recorder.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait({task})


def ids(records: Iterable[Record]) -> list[int]:
    return [record.sample.token_id for record in records]


async def test_new_ones_at_once_then_changed_ones_once_a_minute() -> None:
    async with scene() as stage:
        stage.book.add(1, 2)
        first = await stage.block(1, 1000)
        assert ids(first) == [1, 2]
        assert [(one.active_s, one.covered_s, one.price) for one in first] == [(0, 0, "2")] * 2
        found = []
        for number in range(2, 200):
            stage.book.values[1] = number
            found += await stage.block(number, 1000 + number)
        assert set(ids(found)) == {1}
        times = [one.timestamp for one in found]
        assert len(times) in (3, 4) and all(later - earlier == 60 for earlier, later in itertools.pairwise(times))
        assert all(one.covered_s == one.active_s for one in found)
        assert sum(one.covered_s for one in found) == times[-1] - 1000


async def test_what_does_not_change_rests() -> None:
    async with scene() as stage:
        stage.book.add(1, is_active=False)
        await stage.block(1, 0)
        found = [one for number in range(2, 402) for one in await stage.block(number, 10 * number)]
        assert len(found) == 4
        assert all(one.active_s == 0 and 900 <= one.covered_s <= 970 for one in found)


async def test_changed_liquidity_at_its_very_block() -> None:
    async with scene() as stage:
        stage.book.add(*range(300))
        await stage.block(1, 0)
        stage.is_at_rest = False
        for number in (2, 3):
            stage.book.resized = {TokenId(token_id) for token_id in range(256)}
            assert ids(await stage.block(number, number)) == list(range(256))
        assert (await stage.block(4, 4)) == []


async def test_nothing_is_taken_while_anything_is_unsettled_but_a_little_at_each_block() -> None:
    async with scene() as stage:
        stage.book.add(*range(200))
        stage.is_at_rest = False
        first = await stage.block(1, 0)
        assert 0 < len(first) < 100
        asked = stage.book.asked
        assert await stage.taken() == []
        assert stage.book.asked == asked
        second = await stage.block(2, 1)
        stage.is_at_rest = True
        rest = await stage.block(3, 2)
        assert sorted(ids([*first, *second, *rest])) == list(range(200))
        assert {one.block.number for one in rest} == {3}


async def test_a_position_that_turns_after_a_long_rest() -> None:
    """Its record says how long it was in the state that ends: whoever cuts it cuts it right."""
    async with scene() as stage:
        stage.book.add(1)
        await stage.block(1, 0)
        assert await stage.block(2, 59) == []
        await stage.block(3, 300)
        stage.book.turn(1, False)
        (turned,) = await stage.block(4, 700)
        assert (turned.active_s, turned.covered_s) == (700, 700)
        stage.book.turn(1, True)
        assert await stage.block(5, 710) == []
        now = stage.recorder.now(KIND, TokenId(1))
        assert now is not None and (now.active_s, now.covered_s) == (0, 10)
        stage.book.values[1] = 5
        (later,) = await stage.block(6, 800)
        assert (later.active_s, later.covered_s) == (90, 100)


async def test_blocks_that_leave_the_chain() -> None:
    async with scene() as stage:
        stage.book.add(1)
        await stage.block(1, 0)
        stage.book.values[1] = 2
        (lost,) = await stage.block(2, 100)
        assert lost.covered_s == 100
        stage.book.turn(1, False)
        await stage.block(3, 110)
        stage.reorg(1, header(2, 100), header(3, 110))
        batch = stage.backlog.take(9)
        assert batch.rewind is not None and (batch.rewind.number, batch.rewind.since) == (1, 100)
        stage.backlog.done()
        # On this branch it has the value again that was recorded last: nothing to record, until it changes.
        stage.book.values[1] = 1
        stage.book.turn(1, True)
        assert await stage.block(2, 90, branch=1) == []
        stage.book.values[1] = 3
        (kept,) = await stage.block(3, 200, branch=1)
        assert (kept.active_s, kept.covered_s) == (200, 200)


async def test_after_a_deep_reorganisation_everything_begins_again() -> None:
    async with scene() as stage:
        stage.book.add(1)
        await stage.block(1, 0)
        stage.recorder.published(header(2, 100))
        stage.reorg(None)
        assert stage.backlog.is_empty
        (first,) = await stage.block(50, 1000, branch=1)
        assert (first.active_s, first.covered_s) == (0, 0)


async def test_now_is_told_without_being_taken() -> None:
    async with scene() as stage:
        assert stage.recorder.now(KIND, TokenId(1)) is None
        stage.book.add(1)
        await stage.block(1, 0)
        await stage.block(2, 30)
        for _ in range(2):
            now = stage.recorder.now(KIND, TokenId(1))
            assert now is not None and (now.block.number, now.active_s, now.covered_s) == (2, 30, 30)
        assert stage.recorder.now(KIND, TokenId(2)) is None
        stage.is_at_rest = False
        assert stage.recorder.now(KIND, TokenId(1)) is None


async def test_a_chain_s_time_that_is_none() -> None:
    async with scene() as stage:
        stage.book.add(1)
        assert await stage.block(1, 2**63) == []
        assert stage.recorder.head is None
        assert ids(await stage.block(2, 5)) == [1]
