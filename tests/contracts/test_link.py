"""The broker's contract, as engines and gateways see it: the same for a process's own memory and for Redis."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from rtserver.broker.memory import MemoryBroker
from rtserver.broker.ports import ChainLink, Fenced
from rtserver.broker.redis_link import RedisBroker
from rtserver.broker.steps import Entry, Heard, Snapshot, Step, decode_entry
from rtserver.domain.chain import BlockRef, Header, Rollback
from rtserver.domain.errors import ClientError
from rtserver.domain.ids import BlockHash

TTL_MS = 60_000


@pytest.fixture(params=["memory", "redis", "cluster"])
async def link(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[ChainLink]:
    if request.param == "memory":
        yield MemoryBroker().chain(1)
        return
    broker = RedisBroker(urls[request.param], f"t{secrets.token_hex(6)}")
    try:
        yield broker.chain(1)
    finally:
        await broker.aclose()


def header(number: int) -> Header:
    return Header(
        number=number,
        hash=BlockHash(f"0x{number:064x}"),
        parent_hash=BlockHash(f"0x{number - 1:064x}"),
        timestamp=1_700_000_000 + number,
        logs_bloom=0,
    )


def entry(seq: int, epoch: str = "e1", rollback: Rollback | None = None) -> Entry:
    fragment = f'{{"channel":"ö \\n","seq":{seq}}}'
    return Entry(epoch=epoch, seq=seq, tag=f"{seq:016x}", at_ms=seq, fragment=fragment, rollback=rollback)


def snapshot(seq: int, epoch: str = "e1") -> Snapshot:
    return Snapshot(epoch=epoch, seq=seq, tag=f"{seq:016x}", at_ms=seq, state=f'{{"s":{{"at":{seq}}}}}'.encode())


def opening(*channels: str, begins_run: bool = False, epoch: str = "e1") -> Step:
    return Step(
        header=header(1),
        snapshots={name: snapshot(0, epoch) for name in channels},
        opened=list(channels),
        begins_run=begins_run,
    )


def change(seq: int, *channels: str, oldest: int = 1, rollback: Rollback | None = None) -> Step:
    entries = {name: entry(seq, rollback=rollback) for name in channels}
    return Step(header=header(seq + 1), rollback=rollback, entries=entries, oldest=dict.fromkeys(channels, oldest))


async def begin(link: ChainLink, *channels: str, holder: str = "a1") -> str:
    token = await link.acquire(holder, TTL_MS)
    assert token is not None
    await link.publish(token, 1, opening(*channels, begins_run=True))
    return token


# --- who is in charge ---------------------------------------------------------------------------------


async def test_a_lease_has_one_holder_and_generations_only_grow(link: ChainLink) -> None:
    first = await link.acquire("a1", TTL_MS)
    assert first is not None
    assert await link.acquire("b2", TTL_MS) is None
    again = await link.acquire("a1", TTL_MS)
    assert again is not None
    assert int(again.split("-")[0]) > int(first.split("-")[0])
    assert not await link.renew(first, TTL_MS)
    assert await link.renew(again, TTL_MS)


async def test_a_lease_that_is_given_back_or_runs_out_is_free(link: ChainLink) -> None:
    first = await link.acquire("a1", TTL_MS)
    assert first is not None
    await link.release(first)
    second = await link.acquire("b2", 1)
    assert second is not None
    async with asyncio.timeout(5):
        while (third := await link.acquire("c3", 90)) is None:
            await asyncio.sleep(0.002)
    assert not await link.renew(second, TTL_MS)
    await link.release(second)
    assert await link.acquire("d4", TTL_MS) is None
    assert await link.renew(third, TTL_MS)


async def test_a_lease_that_ran_out_is_its_holders_for_a_while(link: ChainLink) -> None:
    """It runs out as well where the broker itself was away: then its holder comes back first, and goes on."""
    first = await link.acquire("a1", 1)
    assert first is not None
    await asyncio.sleep(0.01)
    assert await link.acquire("b2", TTL_MS) is None
    assert await link.renew(first, 1)
    await asyncio.sleep(0.01)
    # Counted anew.
    assert await link.acquire("b2", TTL_MS) is None
    assert await link.renew(first, TTL_MS)


async def test_whoever_slept_through_a_lease_that_nobody_took_goes_on(link: ChainLink) -> None:
    token = await link.acquire("a1", 1)
    assert token is not None
    await asyncio.sleep(0.01)
    await link.publish(token, 1, opening("x", begins_run=True))
    assert await link.renew(token, TTL_MS)


async def test_an_earlier_generation_can_not_write_or_close(link: ChainLink) -> None:
    old = await begin(link, "x")
    await link.release(old)
    new = await begin(link, "x", holder="b2")
    with pytest.raises(Fenced):
        await link.publish(old, 2, change(1, "x"))
    with pytest.raises(Fenced):
        await link.publish(old, 1, opening("x", begins_run=True))
    with pytest.raises(Fenced):
        await link.close(old, ["x"])
    reading = await link.read({"x": None})
    assert (reading.run, reading.number) == (new, 1)
    assert reading.channels["x"].entries == []


# --- publishing ---------------------------------------------------------------------------------------


async def test_a_step_that_does_not_follow_is_refused_and_the_same_one_taken_once(link: ChainLink) -> None:
    token = await begin(link, "x")
    await link.publish(token, 2, change(1, "x"))
    await link.publish(token, 2, change(1, "x"))
    with pytest.raises(Fenced):
        await link.publish(token, 4, change(3, "x"))
    with pytest.raises(Fenced):
        await link.publish(token, 1, opening("x"))
    reading = await link.read({"x": None})
    assert reading.number == 2
    assert [one.seq for one in reading.channels["x"].entries] == [1]


async def test_everything_comes_back_as_it_was(link: ChainLink) -> None:
    token = await begin(link, "x")
    to = BlockRef(number=1, hash=header(1).hash)
    rollback = Rollback(to=to, dropped=(BlockHash("0x" + "ab" * 32),))
    await link.publish(token, 2, change(1, "x", rollback=rollback))
    reading = await link.read({"x": None, "y": None})
    assert reading.header == header(2)
    assert reading.is_complete
    assert 0 <= reading.age_s < 60
    assert reading.channels.keys() == {"x"}
    held = reading.channels["x"]
    assert held.snapshot == snapshot(0)
    assert held.entries == [entry(1, rollback=rollback)]


async def test_reading_goes_on_from_a_place_or_begins_anew(link: ChainLink) -> None:
    token = await begin(link, "x", "y")
    for seq in range(1, 6):
        await link.publish(token, seq + 1, change(seq, "x", oldest=max(seq - 2, 1)))
    for place, seqs in {("e1", 2): [3, 4, 5], ("e1", 4): [5], ("e1", 5): []}.items():
        held = (await link.read({"x": place})).channels["x"]
        assert held.snapshot is None
        assert [one.seq for one in held.entries] == seqs
    for place in (("e1", 1), ("e1", 6), ("e0", 5)):
        held = (await link.read({"x": place})).channels["x"]
        assert held.snapshot is not None
        assert [one.seq for one in held.entries] == [3, 4, 5]
    for place, is_known in {("e1", 0): True, ("e1", 1): False}.items():
        assert ((await link.read({"y": place})).channels["y"].snapshot is None) == is_known


async def test_a_newer_snapshot_takes_the_place_of_the_older_and_leaves_the_history(link: ChainLink) -> None:
    token = await begin(link, "x")
    await link.publish(token, 2, change(1, "x"))
    step = change(2, "x")
    step.snapshots["x"] = snapshot(2)
    await link.publish(token, 3, step)
    held = (await link.read({"x": None})).channels["x"]
    assert held.snapshot == snapshot(2)
    assert [one.seq for one in held.entries] == [1, 2]


async def test_a_channel_that_begins_anew_has_no_history(link: ChainLink) -> None:
    token = await begin(link, "x")
    await link.publish(token, 2, change(1, "x"))
    await link.publish(token, 3, opening("x", epoch="e2"))
    held = (await link.read({"x": ("e1", 1)})).channels["x"]
    assert held.snapshot == snapshot(0, "e2")
    assert held.entries == []


async def test_a_run_begins_with_nothing_of_the_one_before(link: ChainLink) -> None:
    old = await begin(link, "x", "y")
    await link.publish(old, 2, change(1, "x"))
    new = await link.acquire("a1", TTL_MS)
    assert new is not None
    first = opening("x", begins_run=True, epoch="e2")
    first.is_complete = False
    await link.publish(new, 1, first)
    reading = await link.read({"x": ("e1", 1), "y": ("e1", 0)})
    assert reading.run == new
    assert not reading.is_complete
    assert reading.channels.keys() == {"x"}
    assert reading.channels["x"].snapshot == snapshot(0, "e2")
    await link.publish(new, 2, opening("y", epoch="e2"))
    assert (await link.read({"y": None})).is_complete


async def test_nothing_is_read_where_nothing_was_published(link: ChainLink) -> None:
    assert (await link.read({"x": None})).run == ""


# --- hearing ------------------------------------------------------------------------------------------


async def test_steps_are_heard_in_order_as_they_were_published(link: ChainLink) -> None:
    async with aclosing(link.steps()) as steps, asyncio.timeout(10):  # type: ignore[type-var]
        assert await anext(steps) is None
        token = await begin(link, "x", "y")
        refusing = change(1, "x")
        refusing.refused["z"] = ClientError("bad_channel", "no such pool: «z»", retry_after_ms=5)
        await link.publish(token, 2, refusing)
        await link.renew(token, TTL_MS)
        opened, changed, beat = await anext(steps), await anext(steps), await anext(steps)
    assert opened is not None and changed is not None and beat is not None
    assert (opened.run, opened.number, set(opened.opened)) == (token, 1, {"x", "y"})
    assert not opened.entries
    assert opened.is_complete
    assert changed.header == header(2)
    assert changed.entries.keys() == {"x"}
    assert decode_entry(changed.entries["x"]) == entry(1)
    error = changed.refused["z"]
    assert (error.code, error.message, error.retry_after_ms) == ("bad_channel", "no such pool: «z»", 5)
    assert beat == Heard(run=token, number=2, is_beat=True)


# --- wishes -------------------------------------------------------------------------------------------


async def test_wishes_for_what_is_not_there_are_heard(link: ChainLink) -> None:
    await begin(link, "x", "y")
    async with aclosing(link.wishes()) as wishes, asyncio.timeout(10):  # type: ignore[type-var]
        assert list(await anext(wishes)) == []
        assert not await link.announce("g1", ["x", "v"], [], TTL_MS)
        assert list(await anext(wishes)) == ["v"]
        await link.announce("g2", ["x", "y"], [], TTL_MS)
        # Again: the engine may have refused it, or have closed it just then.
        await link.announce("g2", ["w", "v"], [], TTL_MS)
        assert list(await anext(wishes)) == ["w", "v"]


class _Wanted:
    """A reader of wishes, as an engine is."""

    def __init__(self, link: ChainLink) -> None:
        self._link = link
        self._at = ""
        self.names: set[str] = set()

    async def look(self) -> set[str]:
        found = await self._link.interests(self._at)
        self._at = found.cursor
        self.names = set(found.added) if found.is_whole else (self.names - found.removed) | found.added
        self.gateways = found.gateways
        return self.names


async def test_wishes_are_counted_and_read_by_what_changed(link: ChainLink) -> None:
    reader = _Wanted(link)
    assert await reader.look() == set()
    await link.announce("g1", ["x", "y"], [], TTL_MS)
    assert await reader.look() == {"x", "y"}
    assert await link.announce("g1", [], [], TTL_MS)
    assert await link.announce("g1", ["z", "x"], ["y"], TTL_MS)
    await link.announce("g2", ["x"], [], TTL_MS)
    assert await reader.look() == {"x", "z"}
    await link.announce("g1", [], ["x", "nothing"], TTL_MS)
    await link.announce("g1", [], ["x"], TTL_MS)
    assert await reader.look() == {"x", "z"}
    await link.announce("g2", [], ["x"], TTL_MS)
    assert await reader.look() == {"z"}
    await link.announce("g2", ["x"], [], TTL_MS)
    await link.announce("g2", [], ["x"], TTL_MS)
    await link.announce("g1", [], ["z"], TTL_MS)
    await link.announce("g1", ["z"], [], TTL_MS)
    assert await reader.look() == {"z"} == await _Wanted(link).look()
    assert reader.gateways == 2


async def test_a_gateway_that_left_or_fell_silent_wishes_for_nothing(link: ChainLink) -> None:
    reader = _Wanted(link)
    await link.announce("g1", ["x"], [], TTL_MS)
    await reader.look()
    await link.announce("g2", ["x", "y"], [], 1)
    async with asyncio.timeout(5):
        while await reader.look() != {"x"} or reader.gateways != 1:
            await asyncio.sleep(0.002)
    await link.leave("g1")
    assert await reader.look() == set()
    assert not await link.announce("g2", [], [], TTL_MS)
    assert (await reader.look(), reader.gateways) == (set(), 1)
    assert await link.announce("g2", ["y"], [], 1)
    await asyncio.sleep(0.01)
    # It comes back before anyone noticed: what it wished for then is not what it wishes for now.
    assert not await link.announce("g2", ["z"], [], TTL_MS)
    assert await reader.look() == {"z"} == await _Wanted(link).look()


async def test_only_what_nobody_wishes_for_is_closed(link: ChainLink) -> None:
    token = await begin(link, "x", "y", "z")
    await link.announce("g1", ["x"], [], TTL_MS)
    await link.announce("g2", ["y"], [], 1)
    async with asyncio.timeout(5):
        while (closed := await link.close(token, ["x", "y"])) == []:
            await asyncio.sleep(0.002)
    assert closed == ["y"]
    assert (await link.read({"x": None, "y": None, "z": None})).channels.keys() == {"x", "z"}
    await link.announce("g1", [], ["x"], TTL_MS)
    assert sorted(await link.close(token, ["x", "z"])) == ["x", "z"]
