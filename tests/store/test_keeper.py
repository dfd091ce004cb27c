"""When checkpoints are taken and written, against a disk that is slow, full, dead, or someone else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rtserver.domain.chain import BlockRef, Header
from rtserver.domain.ids import BlockHash, ChainId
from rtserver.engine.keeping import Keeper
from rtserver.obs.metrics import Metrics
from rtserver.store.database import StoreError
from rtserver.store.store import TakenOver
from rtserver.store.values import ALONE, CHANNELS, Changes, KeptStream

STREAM = KeptStream(epoch="e", seq=3, tag="00", state={})


def header(number: int) -> Header:
    name = f"0x{number:064x}"
    return Header(number=number, hash=BlockHash(name), parent_hash=BlockHash(""), timestamp=number, logs_bloom=0)


class Book:
    """A book whose facts are a dictionary."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}

    def keep(self, *, whole: bool) -> dict[str, Any]:
        before = {} if whole else self._kept
        changed = {key: fact for key, fact in self.facts.items() if before.get(key) != fact}
        changed |= dict.fromkeys(before.keys() - self.facts.keys())
        self._kept = dict(self.facts)
        return changed


class Core:
    channels: Sequence[str] = ()


class Disk:
    """Takes checkpoints one by one, as the test lets it; applies them to what it holds."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.writes: list[Changes] = []
        self.answers: list[Exception | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Event()

    async def save(self, chain_id: ChainId, identity: str, changes: Changes) -> None:
        self.began.set()
        await self.gate.wait()
        if self.answers and (answer := self.answers.pop(0)) is not None:
            raise answer
        if changes.is_whole:
            self.held = {}
        for part, facts in changes.facts:
            mine = self.held.setdefault(part, {})
            for key, fact in facts.items():
                mine.pop(key, None)
                if fact is not None:
                    mine[key] = fact
        self.writes.append(changes)


class Scene:
    def __init__(self, every_s: float) -> None:
        self.book, self.core, self.disk, self.metrics = Book(), Core(), Disk(), Metrics()
        self.window = [header(number) for number in range(3)]
        self.is_at_rest = True
        self.charge: str | None = ALONE
        self.keeper = Keeper(
            chain_id=ChainId(1), name="one", identity="i", core=self.core, books={"book": self.book},  # type: ignore[arg-type, dict-item]
            window=lambda: self.window, is_at_rest=lambda: self.is_at_rest, saver=self.disk, every_s=every_s,
            metrics=self.metrics, charge=lambda: self.charge,
        )  # fmt: skip

    def block(self, **facts: Any) -> None:
        self.window.append(header(len(self.window)))
        self.book.facts |= facts
        self.keeper.published(self.window[-1])

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    @property
    def newest_kept(self) -> BlockRef | None:
        return self.disk.writes[-1].window[-1] if self.disk.writes else None

    @property
    def truth(self) -> dict[str, dict[str, Any]]:
        return {CHANNELS: dict.fromkeys(self.core.channels, 1), "book": self.book.facts}


@asynccontextmanager
async def scene(every_s: float = 0.0) -> AsyncIterator[Scene]:
    opened = Scene(every_s)
    task = asyncio.create_task(opened.keeper.run())
    try:
        yield opened
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def one_too_early() -> AsyncIterator[Scene]:
    """A block that is kept, and one that comes before the next checkpoint is due."""
    async with scene(every_s=0.05) as stage:
        stage.block(x=1)
        await stage.until(lambda: len(stage.disk.writes) == 1)
        stage.block(x=2)
        yield stage


async def test_only_changes_are_written() -> None:
    async with scene() as stage:
        stage.core.channels = ("a", "b")
        stage.block(x=1, y=1)
        await stage.until(lambda: len(stage.disk.writes) == 1)
        stage.core.channels = ("b",)
        stage.block(y=2)
        await stage.until(lambda: len(stage.disk.writes) == 2)
        assert [write.is_whole for write in stage.disk.writes] == [True, False]
        assert dict(stage.disk.writes[1].facts) == {CHANNELS: {"a": None}, "book": {"y": 2}}
        assert stage.disk.held == stage.truth


async def test_a_disk_that_hangs_holds_nothing_up() -> None:
    """One checkpoint waits, whatever else happens; what changed meanwhile is in the next one."""
    async with scene() as stage:
        stage.disk.gate.clear()
        stage.block(x=0)
        await stage.disk.began.wait()
        for value in range(1000):
            stage.block(x=value, **{f"k{value % 7}": value})
        stage.disk.gate.set()
        await stage.until(lambda: len(stage.disk.writes) == 2)
        assert stage.disk.held == stage.truth
        assert stage.disk.writes[-1].window[-1] == stage.window[-1].ref


async def test_a_full_disk_is_tried_again_with_everything() -> None:
    async with scene() as stage:
        stage.block(x=1)
        await stage.until(lambda: len(stage.disk.writes) == 1)
        stage.disk.answers = [StoreError("full"), StoreError("full"), None]
        stage.block(y=1)
        await stage.until(lambda: len(stage.disk.answers) == 2)
        stage.block(z=1)
        await stage.until(lambda: len(stage.disk.answers) == 1)
        stage.block(x=2)
        await stage.until(lambda: len(stage.disk.writes) == 2)
        assert stage.disk.writes[-1].is_whole
        assert stage.disk.held == stage.truth
        errors = stage.metrics.registry.get_sample_value("rtserver_store_errors_total", {"chain": "one"})
        assert errors == 2


async def test_a_chain_that_is_someone_else_s_is_kept_no_more() -> None:
    async with scene() as stage:
        stage.disk.answers = [TakenOver("gone")]
        stage.block(x=1)
        await stage.until(lambda: not stage.disk.answers)
        stage.block(x=2)
        await stage.keeper.finish(stage.window[-1], {})
        assert stage.disk.writes == []


async def test_a_quiet_chain_is_kept_when_the_time_has_come() -> None:
    """What was published too early, with nothing after it, is not left out."""
    async with one_too_early() as stage:
        assert len(stage.disk.writes) == 1
        await stage.until(lambda: len(stage.disk.writes) == 2)
        assert stage.disk.held == stage.truth


async def test_nothing_is_taken_between_two_blocks_halves() -> None:
    async with one_too_early() as stage:
        stage.is_at_rest = False
        stage.book.facts["half"] = 1
        await asyncio.sleep(0.15)
        assert len(stage.disk.writes) == 1
        stage.block(half=2)
        await stage.until(lambda: len(stage.disk.writes) == 2)
        assert stage.disk.held == stage.truth


async def test_a_head_that_the_follower_left_is_not_kept() -> None:
    async with scene() as stage:
        stage.keeper.published(header(77))
        stage.block(x=1)
        await stage.until(lambda: len(stage.disk.writes) == 1)
        assert stage.disk.writes[0].window[-1] == stage.window[-1].ref


async def test_a_standby_keeps_nothing_until_it_is_in_charge() -> None:
    """Then it begins with everything, and so it does in its next turn: others have written meanwhile."""
    async with scene() as stage:
        stage.charge = None
        stage.block(x=1)
        stage.block(x=2)
        await asyncio.sleep(0.01)
        assert stage.disk.writes == []
        for turn in ("7-me", "9-me"):
            stage.charge, before = turn, len(stage.disk.writes)
            for value in (3, 4):
                stage.block(x=value)
                await stage.until(lambda: stage.newest_kept == stage.window[-1].ref)
            assert [(write.is_whole, write.charge) for write in stage.disk.writes[before:]] == [
                (True, turn), (False, turn),
            ]  # fmt: skip
            assert stage.disk.held == stage.truth
            stage.charge = None
            stage.block(x=5)
            await asyncio.sleep(0.01)
            assert len(stage.disk.writes) == before + 2
        await stage.keeper.finish(stage.window[-1], {})
        assert len(stage.disk.writes) == 4


async def test_who_slept_through_a_turn_keeps_on_in_the_next() -> None:
    async with scene() as stage:
        stage.charge = "7-me"
        stage.disk.answers = [TakenOver("another engine is in charge")]
        stage.block(x=1)
        await stage.until(lambda: not stage.disk.answers)
        stage.block(x=2)
        await asyncio.sleep(0.01)
        assert stage.disk.writes == []
        stage.charge = "9-me"
        stage.block(x=3)
        await stage.until(lambda: len(stage.disk.writes) == 1)
        assert stage.disk.writes[0].is_whole
        assert stage.disk.held == stage.truth


async def test_nothing_is_written_after_the_last_checkpoint() -> None:
    """It would take the streams away that clients resume by."""
    async with one_too_early() as stage:
        await stage.keeper.finish(stage.window[-1], {"head:1": STREAM})
        await asyncio.sleep(0.15)
        assert [dict(write.streams) for write in stage.disk.writes] == [{}, {"head:1": STREAM}]


async def test_a_turn_does_not_wait_for_what_failed_in_another() -> None:
    async with scene(every_s=3600.0) as stage:
        stage.charge = "7-me"
        stage.disk.answers = [StoreError("full")]
        stage.block(x=1)
        await stage.until(lambda: not stage.disk.answers)
        stage.block(x=2)
        stage.charge = "9-me"
        stage.block(x=3)
        await stage.until(lambda: len(stage.disk.writes) == 1)
        assert stage.disk.held == stage.truth
