"""The market: lively, bounded, repeatable from its seed, and not stopped by anything that a node does."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter

import orjson
import pytest
import websockets

from rtserver.demo.contracts import Contracts
from rtserver.demo.deployment import sqrt_price_of
from rtserver.demo.lab import Lab, open_lab
from rtserver.demo.market import Market, MarketConfig
from rtserver.demo.ranges import RangeKind, choose_range
from rtserver.demo.reading import read_book
from rtserver.demo.rpc import JsonRpc, NodeUnreachable
from rtserver.demo.showcase import mint_exhibits
from rtserver.demo.toolchain import Toolchain

# The reasons for which a transaction of the market may revert: none is known after thousands of blocks.
ALLOWED_FAILURES: frozenset[str] = frozenset()


async def test_fifty_blocks_and_no_failure(lab: Lab) -> None:
    market = Market(lab, seed=11)
    for _ in range(50):
        block = await market.step()
    assert set(market.stats.failed) <= ALLOWED_FAILURES
    assert market.stats.blocks == 50
    assert {"swap", "mint", "increase", "decrease", "collect"} <= set(market.stats.actions)
    read = await read_book(lab, lab.contracts, lab.deployment, lab.pools, block.hash)
    assert read.nfts == lab.book.nfts
    assert read.pools == lab.book.pools
    assert read.depositors == lab.book.depositors


async def test_equal_seeds_give_equal_blocks(toolchain: Toolchain, contracts: Contracts) -> None:
    async def final_hash(seed: int) -> str:
        async with open_lab(toolchain, contracts, owners=4, genesis_timestamp=1_700_000_000) as lab:
            market = Market(lab, seed=seed, config=MarketConfig(seconds_per_block=12))
            for _ in range(50):
                block = await market.step()
            return block.hash

    assert await final_hash(3) == await final_hash(3)
    assert await final_hash(3) != await final_hash(4)


async def test_positions_stay_bounded_and_prices_sane(lab: Lab) -> None:
    market = Market(lab, seed=5, config=MarketConfig(max_nfts=20, changes_per_block=(2, 6)))
    base = len(lab.deployment.pools)
    for _ in range(120):
        await market.step()
        # One block's mints can be decided at once, each seeing room for one more.
        assert len(lab.book.nfts) - base <= 20 + 6
    assert set(market.stats.failed) <= ALLOWED_FAILURES
    for pool in lab.deployment.pools:
        moved = 2 * math.log(lab.pool_state(pool).sqrt_price / sqrt_price_of(pool.token0, pool.token1))
        assert abs(moved) < 0.2, pool.name


async def test_showpieces_keep_owner_and_liquidity(lab: Lab) -> None:
    exhibits = await mint_exhibits(lab, seed=1)
    kept = frozenset(token_id for exhibit in exhibits for token_id in exhibit.token_ids)
    before = {token_id: lab.nft(token_id) for token_id in kept}
    ranges = Counter((nft.pool, nft.lower, nft.upper) for nft in lab.book.nfts.values())
    words = {exhibit.word: exhibit for exhibit in exhibits}
    for nft in (before[i] for i in words["shared"].token_ids):
        assert ranges[nft.pool, nft.lower, nft.upper] == 2
    market = Market(lab, seed=1, config=MarketConfig(kept=kept))
    await market.steps(60)
    for token_id, nft in before.items():
        assert lab.nft(token_id).owner == nft.owner
        assert lab.nft(token_id).liquidity >= nft.liquidity
    assert all(lab.nft(i).owner == lab.deployment.staker for i in words["staked"].token_ids[:-1])
    assert [lab.nft(i).liquidity > 0 for i in words["closed"].token_ids] == [False] * 4 + [True]


async def test_it_goes_on_through_reorgs_and_a_frozen_node(lab: Lab) -> None:
    market = Market(lab, seed=2)
    await lab.node.set_block_time(0.2)
    async with (
        asyncio.timeout(60),
        websockets.connect(lab.node.ws_url) as socket,
        asyncio.TaskGroup() as group,
    ):
        await socket.send(b'{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}')
        await socket.recv()
        running = group.create_task(market.run(0.2))

        async def busy_blocks(count: int) -> None:
            while count:
                header = orjson.loads(await socket.recv())["params"]["result"]
                count -= header["gasUsed"] != "0x0"

        await busy_blocks(3)
        await lab.node.rpc("anvil_reorg", [3, []])
        await busy_blocks(3)
        lab.node.freeze()
        async with JsonRpc(lab.node.http_url, timeout_s=0.5) as impatient:
            with pytest.raises(NodeUnreachable):
                await impatient.call("eth_blockNumber")
        lab.node.thaw()
        await busy_blocks(3)
        running.cancel()
        await lab.node.set_block_time(None)
    await lab.catch_up()
    block = lab.head
    read = await read_book(lab, lab.contracts, lab.deployment, lab.pools, block.hash)
    assert read.nfts == lab.book.nfts
    assert read.pools == lab.book.pools


@pytest.mark.parametrize("kind", [kind for kind in RangeKind if kind is not RangeKind.SHARED])
async def test_ranges_are_what_they_are_called(lab: Lab, kind: RangeKind) -> None:
    rng = random.Random(9)
    for pool in lab.pools:
        tick = lab.pool_state(pool).tick
        for _ in range(50):
            lower, upper = choose_range(rng, pool, tick, kind)
            assert lower < upper
            assert lower % pool.tick_spacing == upper % pool.tick_spacing == 0
            match kind:
                case RangeKind.ABOVE:
                    assert tick < lower
                case RangeKind.BELOW:
                    assert upper <= tick
                case _:
                    assert lower <= tick < upper
