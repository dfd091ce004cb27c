"""Records in the database, of either kind: in and out, taken back with their blocks, rolled up, one writer a chain."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import text

from rtserver.domain.ids import ChainId, TokenId
from rtserver.store.database import Database, StoreError
from rtserver.store.history import HistoryStore
from rtserver.store.records import Bucket, Record, Retention, Rewind
from rtserver.store.store import TakenOver

from .conftest import Place, until_someone_waits
from .records import CHAIN, HERE, KIND, PLACE, block_hash, record

ALL = 2**62
TOKEN = TokenId(7)


@pytest.fixture
async def make(place: Place) -> AsyncIterator[Callable[[], HistoryStore]]:
    """Make histories on one database."""
    databases: list[Database] = []

    def one() -> HistoryStore:
        databases.append(Database(place.url))
        return HistoryStore(databases[-1])

    yield one
    for database in databases:
        await database.close()


@pytest.fixture
async def history(make: Callable[[], HistoryStore]) -> HistoryStore:
    made = make()
    await made.claim(CHAIN, {KIND: HERE})
    return made


async def seen(history: HistoryStore, start: int = 0, end: int = 10**9, step: int = 1, **options: Any) -> list[Bucket]:
    options = {"below": ALL} | options
    return await history.window(PLACE, options.pop("token_id", TOKEN), start=start, end=end, step=step, **options)


async def values(history: HistoryStore, **options: Any) -> list[int]:
    return [int(bucket.value_cents or -1) for bucket in await seen(history, **options)]


async def test_a_record_comes_back_exactly(history: HistoryStore) -> None:
    assert await seen(history) == []
    assert await history.newest(CHAIN) is None
    one = record(5, 1000, active=50, covered=60)
    await history.write(CHAIN, None, [one])
    assert await seen(history) == [
        Bucket(
            slot=999, at=1000, begins=940, block=5, amount0=str(2**127), amount1="5", fees0="1", fees1=None,
            value_cents="5", fees_cents=None, price="1.5", active_s=50, covered_s=60,
        )
    ]  # fmt: skip
    assert await history.newest(CHAIN) == (one.block, 1000)
    assert await seen(history, token_id=TokenId(8)) == []
    assert await history.window((CHAIN, KIND, "there"), TOKEN, start=0, end=2000, step=1, below=ALL) == []


async def test_numbers_have_no_bounds(history: HistoryStore) -> None:
    """What a worthless token makes of a price fits in no integer column."""
    huge = record(2**61, 2**61, value=10**60, fees_cents=10**59, token_id=2**256 - 1)
    await history.write(CHAIN, None, [huge])
    (found,) = await seen(history, start=2**61 - 1, end=2**61, token_id=TokenId(2**256 - 1))
    assert (found.value_cents, found.fees_cents, found.block) == (str(10**60), str(10**59), 2**61)


async def test_adding_twice_changes_nothing(history: HistoryStore) -> None:
    rows = [record(number, number * 10, covered=10) for number in range(1, 1200)]
    for _ in range(2):
        await history.write(CHAIN, None, rows)
    assert await values(history) == list(range(1, 1200))


async def test_blocks_that_left_the_chain_leave_no_record(history: HistoryStore) -> None:
    await history.write(CHAIN, None, [record(number, 1000 + number) for number in range(1, 10)])
    await history.write(CHAIN, Rewind(6, 1007), [record(7, 1008, branch=1), record(8, 1009, branch=1)])
    assert await values(history) == list(range(1, 9))
    newest = await history.newest(CHAIN)
    assert newest is not None and newest[0].hash == block_hash(8, 1)
    # Blocks of the same second, on both sides of the fork.
    await history.write(CHAIN, Rewind(7, 1008), [])
    assert await values(history) == list(range(1, 8))


async def test_another_chain_s_records_stay(make: Callable[[], HistoryStore], history: HistoryStore) -> None:
    other = make()
    await other.claim(ChainId(1), {KIND: HERE})
    for one, chain in ((history, CHAIN), (other, ChainId(1))):
        await one.write(chain, None, [record(number, number) for number in range(1, 4)])
    await history.write(CHAIN, Rewind(0, 0), [])
    assert await history.drop_after(CHAIN, None) == 0
    assert await seen(history) == []
    newest = await other.newest(ChainId(1))
    assert newest is not None and newest[0].number == 3


async def test_the_newest_until_a_time_at_any_level(history: HistoryStore) -> None:
    await history.write(CHAIN, None, [record(number, number * 1000) for number in range(1, 10)])
    await history.roll_up(CHAIN, Retention(minutes_until=4000, hours_until=0, days_until=0))
    for until, number in ((None, 9), (8999, 8), (4000, 4), (3600, 3), (2999, None)):
        found = await history.newest(CHAIN, until)
        assert (found and found[0].number) == number
    assert await history.drop_after(CHAIN, Rewind(3, 4000)) == 6
    assert await values(history) == [3]
    assert await history.drop_after(CHAIN, None) == 1


async def test_a_window_s_parts(history: HistoryStore) -> None:
    """The last of each part, what was before it, and seconds that began before it cut off."""
    rows = [record(number, 100 + 10 * number, active=4, covered=10) for number in range(1, 11)]
    await history.write(CHAIN, None, rows)
    found = await seen(history, start=125, end=200, step=30)
    assert [(one.slot, one.at, one.active_s, one.covered_s) for one in found] == [
        (-1, 120, 0, 0), (0, 150, 2 + 4 + 4, 5 + 10 + 10), (1, 180, 12, 30), (2, 200, 8, 20),
    ]  # fmt: skip
    assert await values(history, start=125, end=200, step=30, below=7) == [2, 5, 6]
    assert await values(history, start=200, end=300, step=100) == [10]
    assert await values(history, start=0, end=50, step=50) == []


async def rolled(history: HistoryStore, **untils: int) -> None:
    retention = Retention(**({"minutes_until": 0, "hours_until": 0, "days_until": 0} | untils))
    while await history.roll_up(CHAIN, retention):
        continue


async def test_rolling_up_keeps_the_newest_and_adds_the_seconds_up(
    history: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtserver.store.history._STEP", 7)
    randomly = random.Random(1)
    rows: list[Record] = []
    for token_id in (7, 8):
        for number in range(1, 300):
            covered = randomly.randrange(600)
            rows.append(record(number, number * 600, token_id=token_id, active=covered // 3, covered=covered))
    await history.write(CHAIN, None, rows)
    total = (sum(row.active_s for row in rows[:299]), sum(row.covered_s for row in rows[:299]))
    for untils in (
        {"minutes_until": 50_000}, {"minutes_until": 120_000}, {"minutes_until": 170_000, "hours_until": 100_000},
        {"minutes_until": 10**6, "hours_until": 10**6},
    ):  # fmt: skip
        await rolled(history, **untils)
        for token_id in (7, 8):
            # From midnight to before midnight, as the buckets are.
            found = await seen(history, start=-1, step=86_400, token_id=TokenId(token_id))
            assert [one.at for one in found] == [143 * 600, 287 * 600, 299 * 600]
            assert [int(one.value_cents or 0) for one in found] == [143, 287, 299]
            if token_id == 7:
                assert (sum(one.active_s for one in found), sum(one.covered_s for one in found)) == total
    # All are days now: the last of each.
    assert await values(history) == [143, 287, 299]
    await rolled(history, days_until=90_000)
    assert await values(history) == [287, 299]


async def test_what_is_kept_longer_is_seen_at_its_own_resolution(history: HistoryStore) -> None:
    await history.write(CHAIN, None, [record(number, number * 60) for number in range(1, 241)])
    await rolled(history, minutes_until=2 * 3600)
    assert await values(history) == [59, 119, *range(120, 241)]
    assert await values(history, start=3600, end=4 * 3600, step=3600) == [59, 120, 180, 240]


async def test_one_process_writes_a_chain(make: Callable[[], HistoryStore], history: HistoryStore) -> None:
    await history.write(CHAIN, None, [record(1, 1)])
    later = make()
    await later.claim(CHAIN, {KIND: HERE})
    for refused in (
        history.write(CHAIN, None, [record(2, 2)]),
        history.drop_after(CHAIN, None),
        history.roll_up(CHAIN, Retention(minutes_until=9, hours_until=0, days_until=0)),
    ):
        with pytest.raises(TakenOver):
            await refused
    await later.write(CHAIN, None, [record(3, 3)])
    assert await values(later) == [1, 3]
    # Whoever lost a chain can read it.
    assert await values(history) == [1, 3]


async def test_the_turn_decides_and_not_who_comes_last(make: Callable[[], HistoryStore]) -> None:
    """A leader that slept through its turn, before or after its claim, writes nothing; one that is alone always may."""
    old, new, alone = make(), make(), make()
    await old.claim(CHAIN, {KIND: HERE}, "9-old")
    await old.write(CHAIN, None, [record(1, 1)])
    await new.claim(CHAIN, {KIND: HERE}, "10-new")
    with pytest.raises(TakenOver):
        await old.write(CHAIN, None, [record(2, 2)])
    with pytest.raises(TakenOver):
        await old.claim(CHAIN, {KIND: HERE}, "9-old")
    await new.write(CHAIN, None, [record(3, 3)])
    await new.claim(CHAIN, {KIND: HERE}, "11-new")
    await old.claim(CHAIN, {KIND: HERE}, "12-old")
    with pytest.raises(TakenOver):
        await new.roll_up(CHAIN, Retention(minutes_until=9, hours_until=0, days_until=0))
    await alone.claim(CHAIN, {KIND: HERE})
    with pytest.raises(TakenOver):
        await old.write(CHAIN, None, [record(4, 4)])
    await new.claim(CHAIN, {KIND: HERE}, "13-new")
    assert await values(new) == [1, 3]


async def test_where_each_position_ends(history: HistoryStore) -> None:
    await history.write(CHAIN, None, [record(n, n * 600, token_id=t) for n in range(1, 20) for t in (7, 8)])
    await history.write(CHAIN, None, [record(20, 12_000, token_id=7), record(1, 600, token_id=9)])
    ends = {(KIND, TokenId(7)): (12_000, 20), (KIND, TokenId(8)): (11_400, 19)}
    assert await history.ends(CHAIN, 7000) == ends
    await rolled(history, minutes_until=11_900)
    assert await history.ends(CHAIN, 7000) == ends
    assert (await history.ends(CHAIN, 0))[KIND, TokenId(9)] == (600, 1)


async def test_nobody_claims_a_chain_while_it_is_written(
    make: Callable[[], HistoryStore], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a leader writes is in the database before the next one looks, or is not written."""
    if place.kind == "sqlite":
        pytest.skip("a file has one writer at a time")
    old, new = make(), make()
    await old.claim(CHAIN, {KIND: HERE}, "1-old")
    # In the middle of its transaction: it has found that it may write, and then stops.
    inside, go_on = asyncio.Event(), asyncio.Event()
    prove = old._prove_mine

    async def slowly(connection: Any, chain_id: ChainId) -> None:
        await prove(connection, chain_id)
        inside.set()
        await go_on.wait()

    monkeypatch.setattr(old, "_prove_mine", slowly)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(old.write(CHAIN, None, [record(1, 1)]))
        await inside.wait()
        claiming = group.create_task(new.claim(CHAIN, {KIND: HERE}, "2-new"))
        await until_someone_waits(place)
        assert not claiming.done()
        go_on.set()
    assert await values(new) == [1]


async def test_a_leader_that_stops_while_it_writes_keeps_nobody_waiting(
    make: Callable[[], HistoryStore], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place.kind == "sqlite":
        pytest.skip("a file is one engine's own")
    old, new = make(), make()
    await old.claim(CHAIN, {KIND: HERE}, "1-old")
    inside, go_on = asyncio.Event(), asyncio.Event()
    prove = old._prove_mine

    async def stopped(connection: Any, chain_id: ChainId) -> None:
        await prove(connection, chain_id)
        limit = (await connection.execute(text("SHOW idle_in_transaction_session_timeout"))).scalar()
        assert limit == "10s"
        # Shorter from here on only: a busy machine may take its time between two statements.
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 100"))
        inside.set()
        await go_on.wait()

    monkeypatch.setattr(old, "_prove_mine", stopped)
    writing = asyncio.create_task(old.write(CHAIN, None, [record(1, 1)]))
    async with asyncio.timeout(60):
        await inside.wait()
        await new.claim(CHAIN, {KIND: HERE}, "2-new")
    go_on.set()
    with pytest.raises(StoreError):
        await writing
    monkeypatch.setattr(old, "_prove_mine", prove)
    with pytest.raises(TakenOver):
        await old.write(CHAIN, None, [record(1, 1)])
    assert await values(new) == []


async def test_samples_for_the_windows_of_a_new_process(history: HistoryStore) -> None:
    """The first of each step, at each level; of what is on the chain."""
    await history.write(CHAIN, None, [record(n, n * 600, token_id=t) for n in range(1, 20) for t in (7, 8, 9)])
    await rolled(history, minutes_until=7000)
    parts = [(9000, 11_400, 600), (1000, 9000, 1800)]
    found = await history.samples(PLACE, [TokenId(7), TokenId(9), TokenId(10)], parts, below=19)
    assert found.keys() == {7, 9}
    assert [(one.timestamp, one.earned0, one.earned1, one.value_cents) for one in found[TokenId(7)]] == [
        (n * 600, n, None, n) for n in (5, 11, 12, 14, 16, 17, 18)
    ]
    assert await history.samples((CHAIN, "other", HERE), [TokenId(7)], parts, below=19) == {}


async def test_the_nearest_record_with_a_value(history: HistoryStore) -> None:
    await history.write(
        CHAIN,
        None,
        [
            record(10, 1_000, value=50_000),
            record(11, 1_100, value=None),
            record(12, 1_150, value=9_999),
            record(13, 1_300, value=60_000, token_id=8),
            record(14, 1_220, value=70_000, token_id=9),
        ],
    )

    async def near(at: int, *token_ids: int, within: int = 250, below: int = ALL) -> int | None:
        tokens = [TokenId(token_id) for token_id in token_ids]
        found = await history.nearest(PLACE, tokens, at=at, within=within, below=below)
        return None if found is None else found.value_cents

    # What has no value, or too small a one to tell prices by, is none.
    assert await near(1_120, 7, 8) == 50_000
    assert await near(1_210, 7, 8) == 60_000
    assert (await near(1_210, 7), await near(1_210, 7, within=200)) == (50_000, None)
    assert await near(1_210, 7, 8, below=13) == 50_000
    found = await history.nearest(PLACE, [TokenId(8)], at=1_300, within=0, below=ALL)
    assert found is not None
    assert (found.timestamp, found.amount0, found.amount1, found.sqrt_price_x96) == (1_300, 2**127, 5, 2**160 - 1)
    # Rolled up, too.
    while await history.roll_up(CHAIN, Retention(minutes_until=2**40, hours_until=0, days_until=0)):
        pass
    assert await near(1_290, 7, 8) == 60_000
    assert await history.nearest((CHAIN, KIND, "elsewhere"), [TokenId(8)], at=1_300, within=0, below=ALL) is None
