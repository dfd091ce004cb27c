"""Gaps, frozen and restarted nodes: what was missed is read in order, and the state is the chain's again."""

import asyncio

from rtserver.demo.lab import Lab

from .world import open_market


async def test_a_frozen_node_is_caught_up_with(lab: Lab) -> None:
    async with open_market(lab, seed=21) as (market, world):
        lab.node.freeze()
        # Long enough for reads to hang and fail: the time-out of the endpoint is below this.
        stalled = asyncio.get_running_loop().time() + 2.0
        while asyncio.get_running_loop().time() < stalled:
            await asyncio.sleep(0.1)
        lab.node.thaw()
        await market.steps(5)
        await world.settled()
        await world.assert_exact()
        await world.assert_same_owners()


async def test_a_restarted_node_is_found_again(lab: Lab) -> None:
    async with open_market(lab, seed=22) as (market, world):
        await lab.node.restart()
        await market.steps(8)
        await world.settled()
        await world.assert_exact()
        await world.assert_same_owners()
        fresh = await world.fresh()
        assert fresh.states == world.keeper.states


async def test_many_blocks_at_once_become_one_step(lab: Lab) -> None:
    """A burst that outruns the engine is one event, and nothing of it is missed."""
    async with open_market(lab, seed=23) as (market, world):
        for _ in range(10):
            await market.step()
            await lab.node.rpc("anvil_mine", ["0x5"])
            await lab.catch_up()
        await world.settled()
        await world.assert_exact()
        assert len(world.keeper.updates) < 60


async def test_reads_over_a_websocket_alone(lab: Lab) -> None:
    async with open_market(lab, seed=24, reads="ws") as (market, world):
        for _ in range(20):
            await market.step()
            await world.settled()
        await world.assert_exact()
