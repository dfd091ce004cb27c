"""Reorgs of the real chain: after each, one corrected step at the new head, equal to a fresh load."""

import random

import pytest

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.domain.chain import Rollback

from .world import World, open_market, open_world, owner_channel, pool_channel, position_channel


async def reorg(world: World, depth: int) -> Rollback:
    """Replace the last blocks by empty ones; return the rollback that clients were told."""
    before = len(world.keeper.updates)
    await world.lab.node.rpc("anvil_reorg", [depth, []])
    await world.lab.catch_up()
    await world.settled()
    rollbacks = [update.rollback for update in world.keeper.updates[before:] if update.rollback is not None]
    assert len(rollbacks) == 1
    # An empty block that is mined again at the same second is the same block: then fewer are dropped.
    assert 1 <= len(rollbacks[0].dropped) <= depth
    return rollbacks[0]


async def assert_whole(world: World) -> None:
    """The state is the chain's, and the same as that of an engine that starts now."""
    await world.assert_exact()
    await world.assert_same_owners()
    fresh = await world.fresh()
    assert fresh.states == world.keeper.states


@pytest.mark.parametrize("seed", [1, 2])
async def test_reorgs_of_any_depth_during_a_market(lab: Lab, seed: int) -> None:
    rng = random.Random(seed)
    async with open_market(lab, seed=seed) as (market, world):
        await world.open(*(pool_channel(pool.address) for pool in lab.pools[:3]))
        for _ in range(12):
            await market.steps(rng.randint(1, 8))
            await world.settled()
            await reorg(world, rng.randint(1, 6))
            await assert_whole(world)


async def test_two_reorgs_in_a_row(lab: Lab) -> None:
    async with open_market(lab, seed=5) as (market, world):
        await market.steps(6)
        await world.settled()
        await reorg(world, 3)
        await reorg(world, 6)
        await assert_whole(world)


async def test_a_reorg_that_was_loaded_in_the_middle(lab: Lab) -> None:
    """What is first read at a block that then leaves the chain is read again."""
    market = Market(lab, seed=6)
    await market.steps(30)
    async with open_world(lab) as world:
        for owner in lab.owners:
            await market.step()
            await world.settled()
            await world.open(owner_channel(owner))
        await reorg(world, len(lab.owners))
        await assert_whole(world)


async def test_mint_burn_and_transfer_are_undone(lab: Lab) -> None:
    first, second = lab.owners[:2]
    pool = lab.pool("WETH", "USDC", 500)
    lower, upper = pool.align(lab.pool_state(pool).tick - 2000), pool.align(lab.pool_state(pool).tick + 2000)
    burned = await lab.mint_now(first, pool, lower, upper)
    moved = await lab.mint_now(first, pool, lower, upper)
    async with open_world(lab) as world:
        await world.open_owners((first, second))
        await world.open(position_channel(burned), position_channel(moved))
        minted = await lab.mint_now(second, pool, lower, upper)
        await lab.burn(burned)
        await lab.transfer(moved, second)
        await lab.mine()
        await world.settled()
        assert set(world.owner(first)) == set()
        assert set(world.owner(second)) == {f"uniswap-v3:{minted}", f"uniswap-v3:{moved}"}
        assert world.keeper.states[position_channel(burned).name] == {}
        await reorg(world, 2)
        assert set(world.owner(first)) == {f"uniswap-v3:{burned}", f"uniswap-v3:{moved}"}
        assert set(world.owner(second)) == set()
        assert world.position(burned)["owner"].lower() == first.lower()
        await assert_whole(world)


async def test_a_rollback_without_new_blocks_shows_with_the_next_one(lab: Lab) -> None:
    async with open_market(lab, seed=8) as (market, world):
        await market.steps(5)
        await world.settled()
        await lab.node.rpc("anvil_rollback", [3])
        await lab.mine()
        await world.settled()
        await assert_whole(world)
        assert len([update for update in world.keeper.updates if update.rollback is not None]) == 1


async def test_deeper_than_the_journal_starts_again_from_the_chain(lab: Lab) -> None:
    async with open_market(lab, seed=9) as (market, world):
        await market.steps(70)
        await world.settled()
        await lab.node.rpc("anvil_reorg", [68, []])
        await lab.catch_up()
        await world.settled()
        await assert_whole(world)
        rollback = next(update.rollback for update in reversed(world.keeper.updates) if update.rollback is not None)
        assert rollback.to is None


@pytest.mark.parametrize("depth", [1, 2, 17, 64])
async def test_up_to_the_journal_it_is_one_rollback(lab: Lab, depth: int) -> None:
    """Positions minted, moved, grown and burned inside of the orphans are as they were, whatever the depth."""
    async with open_market(lab, seed=30 + depth) as (market, world):
        await lab.mine(3)
        await world.settled()
        before = lab.head
        await market.steps(min(depth, 20))
        await lab.mine(max(depth - 20, 0) or 1)
        await world.settled()
        told = len(world.keeper.updates)
        await lab.node.rpc("anvil_reorg", [lab.head.number - before.number, []])
        await lab.catch_up()
        await world.settled()
        (rollback,) = [update.rollback for update in world.keeper.updates[told:] if update.rollback is not None]
        assert rollback.to is not None
        assert rollback.to.hash == before.hash
        await assert_whole(world)


@pytest.mark.parametrize("depth", [65, 90])
async def test_past_the_journal_everything_is_read_anew(lab: Lab, depth: int) -> None:
    async with open_market(lab, seed=31) as (market, world):
        # Empty blocks that are mined again in the same second are the same ones: what differs goes first.
        await market.steps(depth - 60)
        await lab.mine(60)
        await world.settled()
        told = len(world.keeper.updates)
        await lab.node.rpc("anvil_reorg", [depth, []])
        await lab.catch_up()
        await world.settled()
        assert None in [update.rollback.to for update in world.keeper.updates[told:] if update.rollback is not None]
        await assert_whole(world)
        # What was begun anew can be undone again.
        await market.steps(3)
        await world.settled()
        assert (await reorg(world, 2)).to is not None
        await assert_whole(world)


async def test_what_was_burned_or_made_in_orphans_comes_back_or_goes(lab: Lab) -> None:
    """Also where a block was made and lost before, and where both happened in the same orphan."""
    owner, other = lab.owners[:2]
    pool = lab.pool("WETH", "USDC", 500)
    lower, upper = pool.align(lab.pool_state(pool).tick - 2000), pool.align(lab.pool_state(pool).tick + 2000)
    kept = await lab.mint_now(owner, pool, lower, upper)
    async with open_world(lab) as world:
        await world.open_owners((owner, other))
        await world.open(position_channel(kept))
        for _ in range(3):
            await lab.decrease(kept)
            await lab.collect(kept)
            await lab.mine()
            await lab.burn(kept)
            made = await lab.mint_now(other, pool, lower, upper)
            await lab.transfer(made, owner)
            await lab.mine()
            await world.settled()
            assert set(world.owner(owner)) == {f"uniswap-v3:{made}"}
            assert world.keeper.states[position_channel(kept).name] == {}
            await reorg(world, 3)
            assert set(world.owner(owner)) == {f"uniswap-v3:{kept}"}
            assert world.owner(other) == {}
            assert int(world.position(kept)["liquidity"]) > 0
            await assert_whole(world)
