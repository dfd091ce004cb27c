"""Every served number equals what the contracts answer at the same block hash, over a seeded market."""

import pytest

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market

from .world import open_world, position_channel


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_block_of_a_market_is_exact(lab: Lab, seed: int) -> None:
    market = Market(lab, seed=seed)
    await market.steps(40)
    async with open_world(lab) as world:
        await world.open_owners((*lab.owners, lab.deployment.staker))
        checked = await world.assert_exact()
        assert checked > 10
        for _ in range(100):
            await market.step()
            await world.settled()
            await world.assert_exact()
            await world.assert_same_owners()
        fresh = await world.fresh()
        assert fresh.states == world.keeper.states


async def test_single_positions_and_a_late_join_see_the_same(lab: Lab) -> None:
    market = Market(lab, seed=7)
    await market.steps(10)
    async with open_world(lab) as world:
        ids = sorted(lab.book.nfts)
        for index in range(40):
            if index < len(ids):
                await world.open(position_channel(ids[index]))
            await market.step()
            await world.settled()
            await world.assert_exact()
        fresh = await world.fresh()
        assert fresh.states == world.keeper.states
