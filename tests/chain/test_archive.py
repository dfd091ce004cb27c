"""Windows that begin before the server did: what the contracts say of then, to the unit."""

from __future__ import annotations

from typing import Any

import pytest

from rtserver.demo.lab import Lab
from rtserver.domain.errors import HistoryPruned
from rtserver.domain.ids import TokenId
from rtserver.protocols.base import Earnings, Window

from .test_gains import traded
from .test_reorg import reorg
from .world import World, open_world

HOUR_S, DAY_S = 3_600, 86_400


def earnings_of(world: World, token_id: int) -> Earnings:
    assert world.book is not None
    found = world.book.earnings(TokenId(token_id))
    assert found is not None
    return found


def window_of(world: World, token_id: int, length_s: int) -> Window | None:
    windows = earnings_of(world, token_id).windows
    return next((window for window in windows if window.length_s == length_s), None)


def covers(world: World, token_id: int, length_s: int) -> int:
    window = window_of(world, token_id, length_s)
    return 0 if window is None else window.covered_s


class Past:
    """A pool that was traded in for hours, with a block every ten minutes."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.owner, self.pool = lab.owners[0], lab.pool("WETH", "USDC", 500)
        self.blocks: dict[int, str] = {}
        self._index = 0

    async def mint(self) -> int:
        tick = self.pool.align(self.lab.pool_state(self.pool).tick)
        token_id = await self.lab.mint_now(self.owner, self.pool, tick - 3_000, tick + 3_000)
        self.note()
        return token_id

    def note(self) -> None:
        self.blocks[self.lab.head.timestamp] = self.lab.head.hash

    async def trade(self, blocks: int) -> None:
        for _ in range(blocks):
            self._index += 1
            await traded(self.lab, self.pool, self.lab.head.timestamp + 600, self._index)
            self.note()


async def test_windows_go_back_to_before_the_server(lab: Lab) -> None:
    await lab.mine()
    past = Past(lab)
    old, grown, collected = await past.mint(), await past.mint(), await past.mint()
    await past.trade(160)  # a day and 2 hours
    before = await lab.collectable(collected, block=lab.head.hash)
    await lab.collect(collected)
    await lab.mine(timestamp=lab.head.timestamp + 60)
    past.note()
    sides = past.pool.token0, past.pool.token1
    await lab.increase(past.owner, grown, *(side.raw_of_usd(50_000) for side in sides))
    await lab.mine(timestamp=lab.head.timestamp + 60)
    past.note()
    await past.trade(2)
    young = await past.mint()
    young_at = lab.head.timestamp
    await past.trade(2)
    async with open_world(lab, looks_back=True) as world:
        await world.open_owners([past.owner])
        await world.keeper.until(lambda: all(covers(world, one, DAY_S) >= DAY_S for one in (old, grown, collected)))
        await world.keeper.until(lambda: covers(world, young, HOUR_S) > 0)
        now, block = lab.head.timestamp, lab.head.hash
        for token_id in (old, grown, collected):
            paid = before if token_id == collected else (0, 0)
            due = await lab.collectable(token_id, block=block)
            for length_s in (HOUR_S, DAY_S):
                window = window_of(world, token_id, length_s)
                assert window is not None
                assert length_s <= window.covered_s <= length_s + length_s // 50 + 600
                then = await lab.collectable(token_id, block=past.blocks[now - window.covered_s])
                assert (window.fees0, window.fees1) == (due[0] + paid[0] - then[0], due[1] + paid[1] - then[1])
                assert window.mean_cents is not None
        # What came in the middle of a window counts from then on alone.
        hour = window_of(world, grown, HOUR_S)
        sample = earnings_of(world, grown).sample
        assert hour is not None and hour.mean_cents is not None and sample.value_cents is not None
        assert hour.mean_cents < sample.value_cents - 500_000
        # A position's windows begin with its mint at the earliest, and its pool's with a week, if it is so old.
        assert covers(world, young, HOUR_S) == covers(world, young, DAY_S) == now - young_at
        assert [window.covered_s >= window.length_s for window in earnings_of(world, old).pool_windows][:2] == [
            True
        ] * 2


async def test_a_node_that_keeps_nothing_old_is_asked_once(lab: Lab) -> None:
    await lab.mine()
    past = Past(lab)
    first = await past.mint()
    await past.trade(12)
    asked: list[Any] = []
    began = lab.head.timestamp
    async with open_world(lab, looks_back=True) as world:
        call = world.reader.call

        async def pruned(calls: Any, block: Any, purpose: str) -> Any:
            if block in list(past.blocks.values())[:-1]:
                asked.append(block)
                raise HistoryPruned("missing trie node")
            return await call(calls, block, purpose)

        world.reader.call = pruned  # type: ignore[method-assign]
        await world.open_owners([past.owner])
        await world.keeper.until(lambda: bool(asked))
        second = await past.mint()
        await past.trade(3)
        await world.settled()
        await world.remembered()
        assert (covers(world, first, HOUR_S), len(asked)) == (lab.head.timestamp - began, 1)
        assert covers(world, second, HOUR_S) > 0


@pytest.mark.parametrize("depth", [2, 6])
async def test_what_was_seen_of_a_block_leaves_with_it(lab: Lab, depth: int) -> None:
    await lab.mine()
    past = Past(lab)
    token_id = await past.mint()
    minted_at = lab.head.timestamp
    await past.trade(8)
    async with open_world(lab, looks_back=True) as world:
        await world.open_owners([past.owner])
        await world.keeper.until(lambda: covers(world, token_id, HOUR_S) >= HOUR_S)
        await reorg(world, depth)
        await past.trade(1)
        await world.settled()
        now = lab.head.timestamp  # blocks without trades are closer: an hour ago may be before the mint
        await world.keeper.until(lambda: covers(world, token_id, HOUR_S) >= min(HOUR_S, now - minted_at))
        window = window_of(world, token_id, HOUR_S)
        assert window is not None
        blocks = [await lab.node.rpc("eth_getBlockByNumber", [hex(n), False]) for n in range(lab.head.number + 1)]
        hashes = {int(block["timestamp"], 16): block["hash"] for block in blocks}
        due = await lab.collectable(token_id, block=lab.head.hash)
        then = await lab.collectable(token_id, block=hashes[now - window.covered_s])
        assert (window.fees0, window.fees1) == (due[0] - then[0], due[1] - then[1])
