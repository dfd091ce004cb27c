"""Owners with hundreds and thousands of positions: few reads, exact, and nothing stalls when they come or go."""

from __future__ import annotations

from rtserver.demo.actions import MAX_U256, Tx
from rtserver.demo.deployment import Pool
from rtserver.demo.lab import Lab

from .counting import CountingProxy
from .staking import Staker, assert_staking
from .world import World, open_world, owner_channel

# The node gives a block so much gas that this is a tenth of it.
PER_TX = 300


async def mint_many(lab: Lab, owner: str, pool: Pool, count: int, *, ranges: int) -> list[int]:
    """Mint positions around the price, many in one transaction, in so many different ranges; return their ids."""
    base, step = pool.align(lab.pool_state(pool).tick), pool.tick_spacing
    usual = lab.actions.mint(owner, pool, base - step, base + step, 10**13, 10**5)
    before = set(lab.book.nfts)
    calls: list[bytes] = []
    for index in range(count):
        width = 1 + index % ranges
        tokens = (pool.token0.address, pool.token1.address, pool.fee_pips)
        amounts = (10**13, 10**5, 0, 0)
        params = (*tokens, base - width * step, base + (ranges + 1 - width) * step, *amounts, owner, MAX_U256)
        calls.append(lab.contracts.position_manager.call("mint", params))
        if len(calls) == PER_TX or index == count - 1:
            data = lab.contracts.position_manager.call("multicall", calls)
            await lab.send(Tx("mint many", owner, usual.to, data, gas=300_000_000))
            await lab.mine()
            calls = []
    return sorted(set(lab.book.nfts) - before)


async def test_two_hundred_positions_a_third_of_them_staked_take_four_reads(lab: Lab) -> None:
    owner = lab.owners[0]
    pool = lab.pool("WETH", "USDC", 500)
    await lab.mine()
    staker = Staker(lab)
    incentive = next(one for one in staker.incentives if one.pool == pool.address)
    # Each in a range of its own: as many ticks as there can be.
    ids = await mint_many(lab, owner, pool, 200, ranges=200)
    for token_id in ids[::3]:
        await staker.deposit(owner, token_id, incentive)
    await lab.mine()
    counted: list[int] = []
    # What a log of the past says too late for the read that it could have shared takes one of its own, on a machine
    # that has much else to do: so the least of three.
    while min(counted, default=5) > 4:
        assert len(counted) < 3, counted
        async with (
            CountingProxy(lab.node.http_url).running() as proxy,
            open_world(lab, http=proxy.url, staking=True) as world,
        ):
            proxy.reset()
            await world.open_owners([owner])
            await world.rewarded()
            counted.append(proxy.methods["eth_call"])
            assert await world.assert_exact() == 200
            compared, _ = await assert_staking(world, staker)
            assert compared == len(ids[::3])


async def test_nine_thousand_positions_of_one_owner(lab: Lab) -> None:
    owner, count = lab.owners[0], 9_000
    pool = lab.pool("WETH", "USDC", 500)
    ids = await mint_many(lab, owner, pool, count, ranges=40)
    sample = {f"uniswap-v3:{token_id}" for token_id in ids[:: count // 200]}
    async with (
        CountingProxy(lab.node.http_url).running() as proxy,
        open_world(lab, http=proxy.url, staking=True) as world,
    ):

        async def assert_sample() -> None:
            views = [view for key, view in world.owner(owner).items() if key in sample]
            assert len(views) == len(sample)
            assert await world.truth(views, world.keeper.head) == []

        proxy.reset()
        world.runner.want(owner_channel(owner))
        await world.keeper.until(lambda: owner_channel(owner).name in world.keeper.states, within_s=60)
        # Each is enumerated and read once, 800 reads a call; the rest is shared.
        assert proxy.methods["eth_call"] <= 2 * count // 800 + 6, proxy.methods
        assert len(world.owner(owner)) == count
        await assert_sample()
        proxy.reset()
        await lab.swap(pool, True, 10**17)
        await lab.mine()
        await world.settled()
        assert proxy.methods["eth_call"] <= 1  # besides, what happened to each of them is still being asked for
        await assert_sample()
        world.runner.unwant(owner_channel(owner))
        await lab.mine()
        await world.settled()
        tracked = {kind: _tracked(world, kind) for kind in ("positions", "owners")}
        assert tracked == {"positions": 0, "owners": 0}


def _tracked(world: World, kind: str) -> float | None:
    return world.metrics.registry.get_sample_value("rtserver_tracked", {"chain": "local", "kind": kind})
