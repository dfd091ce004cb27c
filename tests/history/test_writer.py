"""The writer against a database that fails, hangs or is someone else's, and the search for what is on the chain."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from store.records import CHAIN, KIND, block_hash, record
from structlog.testing import capture_logs

from rtserver.domain.chain import BlockRef, Header
from rtserver.domain.errors import ChainUnavailable
from rtserver.domain.ids import BlockHash, ChainId, TokenId
from rtserver.history.backlog import Backlog
from rtserver.history.writer import Keep, Writer
from rtserver.obs.metrics import Metrics
from rtserver.store.database import StoreError
from rtserver.store.records import Record, Retention, Rewind, Vanished
from rtserver.store.store import TakenOver
from rtserver.store.values import ALONE

from .test_recorder import header


class Disk:
    """Records in memory, with the answers that the test wants; an exception, or None for what it should do."""

    def __init__(self) -> None:
        self.rows: list[Record] = []
        self.answers: list[Exception | None] = []
        self.claims = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.probes = 0
        self.retentions: list[Retention] = []

    async def _answer(self) -> None:
        await self.gate.wait()
        if self.answers and (answer := self.answers.pop(0)) is not None:
            raise answer

    async def claim(self, chain_id: ChainId, identities: Mapping[str, str], charge: str) -> None:
        await self._answer()
        self.claims += 1
        self.charge = charge

    async def ends(self, chain_id: ChainId, since: int) -> Mapping[tuple[str, TokenId], tuple[int, int]]:
        newest = {(row.protocol, row.sample.token_id): (row.timestamp, row.block.number) for row in self.rows}
        return {key: end for key, end in newest.items() if end[0] >= since}

    async def write(self, chain_id: ChainId, rewind: Rewind | None, records: list[Record]) -> None:
        await self._answer()
        await self.drop_after(chain_id, rewind or Rewind(2**62, 0))
        self.rows += records
        self.rows.sort(key=lambda row: row.timestamp)

    async def newest(self, chain_id: ChainId, until: int | None = None) -> tuple[BlockRef, int] | None:
        self.probes += 1
        end = len(self.rows) if until is None else bisect_right(self.rows, until, key=lambda row: row.timestamp)
        return (self.rows[end - 1].block, self.rows[end - 1].timestamp) if end else None

    async def drop_after(self, chain_id: ChainId, rewind: Rewind | None) -> int:
        before = len(self.rows)
        self.rows = [] if rewind is None else [row for row in self.rows if row.block.number <= rewind.number]
        return before - len(self.rows)

    async def roll_up(self, chain_id: ChainId, retention: Retention) -> int:
        self.retentions.append(retention)
        return 0


class Scene:
    def __init__(self) -> None:
        self.disk, self.backlog, self.metrics = Disk(), Backlog(100), Metrics()
        self.head: Header | None = header(100, 1000)
        self.fork: int | None = None
        self.is_away = False
        self.clock = 0.0
        self.charge: str | None = ALONE
        self.writer = Writer(
            chain_id=CHAIN, name="one", identities={KIND: "here"}, records=self.disk, backlog=self.backlog,
            head=lambda: self.head, final=lambda: header(50, 500), hash_at=self.hash_at,
            keep=Keep(minutes_s=100, hours_s=200, days_s=300), metrics=self.metrics, gather_s=0.0,
            clock=lambda: self.clock, charge=lambda: self.charge,
        )  # fmt: skip

    async def hash_at(self, number: int) -> BlockHash | None:
        if self.is_away:
            raise ChainUnavailable("no endpoint answers")
        assert self.head is not None
        if number > self.head.number:
            return None
        return block_hash(number, 0 if self.fork is None or number <= self.fork else 9)

    def add(self, *blocks: int) -> None:
        for number in blocks:
            self.backlog.add(record(number, number * 10), is_change=False)

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    @property
    def written(self) -> list[int]:
        return [row.block.number for row in self.disk.rows]

    def count(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"rtserver_history_{name}", {"chain": "one"})


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    task = asyncio.create_task(made.writer.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_what_waits_is_written() -> None:
    async with scene() as stage:
        stage.add(1, 2, 3)
        await stage.until(lambda: stage.written == [1, 2, 3])
        await stage.until(lambda: stage.backlog.is_settled)
        stage.backlog.rewind(Rewind(1, 20))
        await stage.until(lambda: stage.written == [1])
        assert stage.disk.claims == 1
        assert stage.count("rows_total") == 3
        assert stage.writer.report() == {"state": "writing", "queued": 0, "dropped": 0}


async def test_trouble_is_told_once_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtserver.history.writer._PAUSE_MAX_S", 0.0)
    with capture_logs() as logs:
        async with scene() as stage:
            await stage.until(lambda: stage.writer.is_proved)
            stage.disk.answers = [StoreError("disk is full")] * 5
            stage.add(*range(1, 90))
            await stage.until(lambda: len(stage.disk.answers) <= 2)
            stage.clock = 7.0
            report = stage.writer.report()
            assert (report["state"], report["forMs"]) == ("not written", 7000)
            stage.add(*range(90, 131))
            await stage.until(lambda: stage.writer.report()["state"] == "writing")
            # The oldest 30 had no room.
            assert stage.written == list(range(31, 131))
            await stage.until(lambda: stage.count("dropped_total") == 30)
            assert stage.count("errors_total") == 5
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("history is not written", "warning"), ("history is written again", "info"),
    ]  # fmt: skip
    assert logs[0]["reason"] == "disk is full"
    assert (logs[1]["failures"], logs[1]["dropped"], logs[1]["after_s"]) == (5, 30, 7.0)


async def test_a_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtserver.history.writer._WRITE_S", 0.01)
    async with scene() as stage:
        await stage.until(lambda: stage.writer.is_proved)
        stage.disk.gate.clear()
        stage.add(1, 2)
        await stage.until(lambda: stage.writer.report()["state"] == "not written")
        assert [one.block.number for one in stage.backlog.of(KIND, record(1, 1).sample.token_id)] == [1, 2]
        stage.disk.gate.set()
        await stage.until(lambda: stage.written == [1, 2])


async def test_a_database_that_was_begun_anew_is_claimed_again() -> None:
    async with scene() as stage:
        stage.add(1)
        await stage.until(lambda: stage.written == [1])
        stage.disk.answers = [Vanished("gone")]
        stage.add(2)
        await stage.until(lambda: stage.written == [1, 2])
        assert stage.disk.claims == 2


async def test_a_chain_of_another_process_is_read_only() -> None:
    async with scene() as stage:
        await stage.until(lambda: stage.writer.is_proved)
        stage.disk.answers = [TakenOver("another process")]
        stage.add(1)
        await stage.until(lambda: stage.writer.report()["state"] == "reading only")
        assert stage.writer.is_proved


async def test_nothing_is_written_before_the_chain_has_told_what_is_on_it() -> None:
    async with scene() as stage:
        stage.disk.rows = [record(number, number * 10, branch=7) for number in (5, 6)]
        stage.is_away = True
        stage.head, head = None, stage.head
        stage.add(90)
        for _ in range(50):
            await asyncio.sleep(0)
        assert stage.writer.report()["state"] == "starting"
        stage.head = head
        await stage.until(lambda: stage.writer.report()["state"] == "not written")
        assert not stage.writer.is_proved
        stage.is_away = False
        await stage.until(lambda: stage.written == [90])


async def test_all_that_is_not_on_the_chain_is_deleted_and_nothing_else() -> None:
    """Wherever the chain turned, and however far apart the records are."""
    for seed in range(150):
        randomly = random.Random(seed)
        stage = Scene()
        at = randomly.randrange(10)
        rows = []
        for number in range(1, randomly.choice([2, 5, 60, 90])):
            at += randomly.choice([0, 1, 12, 12, 12, 3000, 10**6])
            rows += [record(number, at, token_id=token) for token in range(randomly.randrange(3))]
        # Above some height they are of a branch that was left, or the chain doesn't reach so high any more.
        stage.fork = randomly.choice([None, 0, randomly.randrange(1, 90)])
        stage.head = header(randomly.choice([100, 100, randomly.randrange(1, 90)]), at)
        stage.disk.rows = list(rows)
        highest = min(stage.head.number, 100 if stage.fork is None else stage.fork)
        await stage.writer._step()
        assert stage.writer.is_proved
        kept = {row.block.number for row in stage.disk.rows}
        assert not any(number > highest for number in kept), seed
        # Of blocks of one second those below the fork may go, too.
        fork_times = {row.timestamp for row in rows if row.block.number > highest}
        expected = {row.block.number for row in rows if row.block.number <= highest and row.timestamp not in fork_times}
        assert expected <= kept, seed
        assert stage.disk.probes < 80


async def test_a_deep_reorganisation_is_looked_at_again() -> None:
    async with scene() as stage:
        stage.add(*range(1, 20))
        await stage.until(lambda: len(stage.written) == 19)
        stage.fork = 12
        stage.writer.doubt()
        assert not stage.writer.is_proved
        await stage.until(lambda: stage.writer.is_proved)
        assert stage.written == list(range(1, 13))


async def test_what_is_old_is_rolled_up_but_not_before_it_is_final() -> None:
    async with scene() as stage:
        await stage.until(lambda: stage.disk.retentions)
        assert stage.disk.retentions == [Retention(minutes_until=500, hours_until=500, days_until=700)]
        stage.head = header(200, 650)
        stage.clock = 29.0
        stage.add(1)
        await stage.until(lambda: stage.written)
        assert len(stage.disk.retentions) == 1
        stage.clock = 31.0
        await stage.until(lambda: len(stage.disk.retentions) == 2)
        assert stage.disk.retentions[1] == Retention(minutes_until=500, hours_until=450, days_until=350)


async def test_the_last_records_are_written_at_an_orderly_end() -> None:
    stage = Scene()
    await stage.writer._step()
    stage.add(*range(1, 60))
    await stage.writer.finish()
    assert len(stage.written) == 59
    await stage.writer.run()
    failing = Scene()
    await failing.writer._step()
    failing.add(1)
    failing.disk.answers = [StoreError("full")]
    await failing.writer.finish()
    assert failing.written == []


async def test_a_standby_writes_nothing_and_goes_on_where_the_other_one_ended() -> None:
    async with scene() as stage:
        stage.charge = None
        stage.head = header(100, 4000)
        # A leader that has written up to 60 of what is on the chain, and a block that left it.
        stage.disk.rows = [record(number, number * 10, covered=10, active=10) for number in range(1, 61)]
        stage.disk.rows.append(record(61, 609, branch=7))
        for number in range(30, 90):
            stage.backlog.add(record(number, number * 10 + 5, covered=10, active=10), is_change=False)
        # Too old to be worth its memory; and of what the leader took back it takes nothing back again.
        await stage.until(lambda: stage.writer.report()["queued"] == 50)
        stage.backlog.rewind(Rewind(88, 890))
        assert stage.writer.report() == {"state": "standby", "queued": 49, "dropped": 0}
        assert (stage.disk.claims, stage.writer.is_proved) == (0, False)
        stage.charge = "2-me"
        await stage.until(lambda: stage.backlog.is_settled and stage.writer.is_proved)
        assert stage.writer.report()["state"] == "writing"
        assert stage.disk.charge == "2-me"
        # The newest of the leader is at 600; what the standby has after it is there, and no second twice.
        assert [row.timestamp for row in stage.disk.rows] == [*range(10, 601, 10), *range(605, 886, 10)]
        assert sum(row.covered_s for row in stage.disk.rows) == 885
        assert all(row.active_s == row.covered_s for row in stage.disk.rows)


async def test_a_leader_that_slept_writes_again_only_in_a_turn_of_its_own() -> None:
    async with scene() as stage:
        stage.charge = "1-me"
        stage.add(1)
        await stage.until(lambda: stage.written == [1])
        stage.disk.answers = [TakenOver("another process")]
        stage.add(2)
        await stage.until(lambda: stage.writer.report()["state"] == "reading only")
        stage.charge = None
        await stage.until(lambda: not stage.writer.is_proved)
        stage.add(3)
        assert stage.written == [1]
        stage.charge = "3-me"
        await stage.until(lambda: stage.written == [1, 2, 3])
        assert (stage.disk.claims, stage.disk.charge) == (2, "3-me")


async def test_blocks_that_leave_while_the_chain_is_claimed() -> None:
    """What is in the database is looked at again: it was of another branch, or was not."""
    async with scene() as stage:
        stage.charge = None
        stage.disk.rows = [record(number, number * 10) for number in range(1, 11)]
        stage.add(9, 10, 11)
        await stage.until(lambda: len(stage.backlog) == 3)
        ends = stage.disk.ends

        async def late(chain_id: ChainId, since: int) -> Mapping[tuple[str, TokenId], tuple[int, int]]:
            found = await ends(chain_id, since)
            stage.disk.ends = ends  # type: ignore[method-assign]
            stage.fork = 8
            stage.backlog.rewind(Rewind(8, 90))
            stage.backlog.add(record(9, 95, branch=9), is_change=False)
            return found

        stage.disk.ends = late  # type: ignore[method-assign]
        stage.charge = "2-me"
        await stage.until(lambda: stage.backlog.is_settled and stage.writer.is_proved)
        assert [row.timestamp for row in stage.disk.rows] == [*range(10, 81, 10), 95]
        assert stage.disk.claims == 2


async def test_the_last_records_of_a_standby_are_the_leader_s() -> None:
    stage = Scene()
    stage.charge = "1-me"
    await stage.writer._step()
    stage.add(1)
    stage.charge = None
    await stage.writer.finish()
    assert stage.written == []


async def test_what_was_proved_in_an_earlier_turn_is_not_known_in_the_next() -> None:
    """Also before anything was looked at in it: another one may have written between them."""
    async with scene() as stage:
        stage.charge = "1-me"
        await stage.until(lambda: stage.writer.is_proved)
        stage.charge = "3-me"
        assert not stage.writer.is_proved
        await stage.until(lambda: stage.writer.is_proved)
        assert stage.disk.claims == 2
