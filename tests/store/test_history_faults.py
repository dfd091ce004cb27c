"""Databases that are dead, locked, full, hung or gone: blocks go on, what can be kept is kept, the rest is told."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from history.test_recorder import Book, header
from sqlalchemy import event

from rtserver.domain.chain import BlockRef, Reorged
from rtserver.domain.errors import ClientError
from rtserver.domain.ids import BlockHash, TokenId
from rtserver.history.build import Chain, Kept, build_history
from rtserver.history.reading import Histories
from rtserver.obs.metrics import Metrics
from rtserver.store import database as database_module
from rtserver.store.database import Database, sqlite_url
from rtserver.store.history import HistoryStore
from rtserver.store.values import ALONE

from .conftest import Place
from .postgres import Postgres
from .records import CHAIN, HERE, KIND

KEPT = Kept(every_s=10, keep_minutes_h=48, keep_hours_d=90, keep_days_d=0, queue_rows=1000)


class Scene:
    """A chain of blocks of ten seconds, whose three positions change with each, and its history."""

    def __init__(self, database: Database, charge: str | None) -> None:
        self.charge = charge
        self.book, self.number = Book(), 0
        self.heads = [header(0, 0)]
        chain = Chain(
            chain_id=CHAIN, name="one", identities={KIND: HERE}, books={KIND: self.book}, is_at_rest=lambda: True,
            window=lambda: self.heads[-64:], headers=self.headers,
        )  # fmt: skip
        shelf = HistoryStore(database)
        self.history = build_history(chain, KEPT, shelf, Metrics(), gather_s=0.01, charge=lambda: self.charge)
        self.past = Histories(shelf, {CHAIN: self.history}, KEPT.every_s)
        self.book.add(1, 2, 3)

    async def headers(self, first: int, last: int) -> list[Any]:
        return self.heads[first : last + 1]

    def blocks(self, count: int) -> None:
        """Publish blocks; each of them at once, whatever the database does."""
        for _ in range(count):
            self.number += 1
            self.book.values = dict.fromkeys(self.book.values, self.number)
            self.heads.append(header(self.number, 10 * self.number))
            self.history.recorder.published(self.heads[-1])

    async def until_state(self, state: str) -> None:
        async with asyncio.timeout(20):
            while self.history.writer.report()["state"] != state:
                await asyncio.sleep(0.005)

    async def until_written(self) -> None:
        async with asyncio.timeout(20):
            while not self.history.backlog.is_settled:
                await asyncio.sleep(0.005)

    async def read(self) -> dict[str, Any]:
        return await self.past.read(CHAIN, KIND, TokenId(1), 100_000, 1000)

    async def blocks_read(self) -> list[int]:
        answer: Any = await self.past.read(CHAIN, KIND, TokenId(1), 10_000, 1000)
        return [point["block"] for point in answer["points"]]

    async def unreadable(self) -> str:
        with pytest.raises(ClientError) as raised:
            await self.read()
        assert raised.value.retry_after_ms
        return raised.value.code


@asynccontextmanager
async def scene(url: str, charge: str | None = ALONE) -> AsyncIterator[Scene]:
    database = Database(url)
    made = Scene(database, charge)
    tasks = [asyncio.create_task(part.run()) for part in (made.history.recorder, made.history.writer)]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await database.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtserver.history.writer._PAUSE_MAX_S", 0.05)
    monkeypatch.setattr(database_module, "_BUSY_S", 0.05)


async def assert_all_there(stage: Scene) -> None:
    """No record is missing, and no second of them."""
    await stage.until_state("writing")
    await stage.until_written()
    assert await stage.blocks_read() == list(range(1, stage.number + 1))
    answer = await stage.read()
    assert (answer["coveredSeconds"], answer["inRangeShare"]) == (10 * (stage.number - 1), "1")


async def test_nothing_is_read_before_the_chain_was_heard(place: Place) -> None:
    async with scene(place.url) as stage:
        assert await stage.unreadable() == "chain_unavailable"
        stage.blocks(2)
        await assert_all_there(stage)


async def test_a_server_that_goes_and_comes_back(postgres: Postgres) -> None:
    async with scene(postgres.url(await postgres.new_database())) as stage:
        stage.blocks(5)
        await assert_all_there(stage)
        await postgres.stop()
        try:
            stage.blocks(20)
            await stage.until_state("not written")
            assert await stage.unreadable() == "history_unavailable"
        finally:
            await postgres.start()
        await assert_all_there(stage)


async def test_a_server_that_hangs(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtserver.history.writer._WRITE_S", 1.0)
    monkeypatch.setattr("rtserver.history.reading._READ_S", 2.0)
    async with scene(postgres.url(await postgres.new_database())) as stage:
        stage.blocks(5)
        await assert_all_there(stage)
        stopped = [postgres.pid, *children(postgres.pid)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            stage.blocks(20)
            await stage.until_state("not written")
            assert await stage.unreadable() == "history_unavailable"
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):  # a helper of the server's that had been told to end
                    os.kill(pid, signal.SIGCONT)
        await assert_all_there(stage)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_file_that_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    async with scene(sqlite_url(path)) as stage:
        stage.blocks(5)
        await assert_all_there(stage)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        stage.blocks(20)
        await stage.until_state("not written")
        # Whoever reads waits for no writer.
        assert await stage.blocks_read() == list(range(1, 26))
        holder.execute("ROLLBACK")
        holder.close()
        await assert_all_there(stage)


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """So is the queue then: the oldest records go, their seconds are not covered, and nothing else is wrong."""
    path = tmp_path / "store.sqlite3"
    async with scene(sqlite_url(path)) as stage:
        stage.blocks(5)
        await assert_all_there(stage)

        def is_full(connection: Any, record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA page_count")
            (count,) = cursor.fetchone()
            cursor.execute(f"PRAGMA max_page_count={count}")
            cursor.close()

        engine = stage.history.writer._records._database.engine.sync_engine  # type: ignore[attr-defined]
        event.listen(engine, "connect", is_full)
        stage.blocks(500)
        await stage.until_state("not written")
        event.remove(engine, "connect", is_full)
        await stage.until_state("writing")
        await stage.until_written()
        report = stage.history.writer.report()
        # 1,500 records came, a thousand may wait.
        assert report["dropped"] >= 500
        found = await stage.blocks_read()
        assert found[:5] == [1, 2, 3, 4, 5]
        assert found[-1] == stage.number
        lost = set(range(6, stage.number)) - set(found)
        assert lost
        answer = await stage.read()
        assert answer["coveredSeconds"] == 10 * (stage.number - 1 - len(lost))


def unlink_all(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


async def test_a_file_that_vanishes(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    async with scene(sqlite_url(path)) as stage:
        stage.blocks(5)
        await assert_all_there(stage)
        unlink_all(tmp_path)
        stage.blocks(5)
        await stage.until_state("not written")
        await stage.until_state("writing")
        await stage.until_written()
        assert await stage.blocks_read() == [6, 7, 8, 9, 10]


async def test_a_later_process_takes_over(place: Place) -> None:
    async with scene(place.url) as first:
        first.blocks(5)
        await assert_all_there(first)
        async with scene(place.url) as second:
            second.number, second.heads = first.number, list(first.heads)
            second.blocks(5)
            await second.until_state("writing")
            await second.until_written()
            first.blocks(1)
            await first.until_state("reading only")
            assert (await first.blocks_read())[:5] == [1, 2, 3, 4, 5]
            second.blocks(5)
            await second.until_written()
            assert await second.blocks_read() == [*range(1, 6), *range(6, 16)]


async def test_the_one_in_charge_writes_whoever_began_last(place: Place) -> None:
    """And nothing is missing after it was lost, nor twice: neither a record nor a second."""
    async with scene(place.url, "1-first") as first, scene(place.url, None) as second:
        for blocks in (3, 4):
            first.blocks(blocks)
            second.blocks(blocks)
            await first.until_written()
        await first.until_state("writing")
        await second.until_state("standby")
        assert await second.unreadable() == "chain_unavailable"
        # Lost before it wrote these; when it comes back it can't.
        first.charge = None
        await first.until_state("standby")
        first.blocks(2)
        second.blocks(2)
        second.charge = "2-second"
        await assert_all_there(second)
        first.charge = "1-first"
        await first.until_state("reading only")
        assert await first.unreadable() == "chain_unavailable"
        second.blocks(3)
        first.blocks(3)
        await assert_all_there(second)
        # And back, in a new turn.
        second.charge, first.charge = None, "3-first"
        await assert_all_there(first)
        first.blocks(1)
        await assert_all_there(first)


async def test_a_branch_that_was_left_while_the_database_was_away(postgres: Postgres) -> None:
    """What was written of it is taken back as soon as anything can be written; it is never read."""
    async with scene(postgres.url(await postgres.new_database())) as stage:
        stage.blocks(10)
        await assert_all_there(stage)
        await postgres.stop()
        try:
            dropped = tuple(stage.heads[6:])
            ancestor = BlockRef(number=5, hash=BlockHash(stage.heads[5].hash))
            del stage.heads[6:]
            stage.history.recorder.reorged(
                Reorged(chain_id=CHAIN, ancestor=ancestor, dropped=dropped, blocks=(header(6, 65, 1),))
            )
            stage.number = 5
            stage.heads.append(header(6, 65, 1))
            stage.history.recorder.published(stage.heads[-1])
        finally:
            await postgres.start()
        assert await stage.blocks_read() == [1, 2, 3, 4, 5, 6]
        await stage.until_state("writing")
        await stage.until_written()
        assert await stage.blocks_read() == [1, 2, 3, 4, 5, 6]
