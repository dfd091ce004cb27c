"""Gaps, frozen and restarted nodes: what was missed is read in order, and the state is the chain's again."""

import asyncio

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market

from .world import open_world


async def test_a_frozen_node_is_caught_up_with(lab: Lab) -> None:
    market = Market(lab, seed=21)
    for _ in range(30):
        await market.step()
    async with open_world(lab) as world:
        await world.open_owners()
        lab.node.freeze()
        # Long enough for reads to hang and fail: the time-out of the endpoint is below this.
        stalled = asyncio.get_running_loop().time() + 2.0
        while asyncio.get_running_loop().time() < stalled:
            await asyncio.sleep(0.1)
        lab.node.thaw()
        for _ in range(5):
            await market.step()
        await world.settled()
        await world.assert_exact()
        await world.assert_same_owners()


async def test_a_restarted_node_is_found_again(lab: Lab) -> None:
    market = Market(lab, seed=22)
    for _ in range(30):
        await market.step()
    async with open_world(lab) as world:
        await world.open_owners()
        await lab.node.restart()
        for _ in range(8):
            await market.step()
        await world.settled()
        await world.assert_exact()
        await world.assert_same_owners()
        fresh = await world.fresh()
        assert fresh.states == world.keeper.states


async def test_many_blocks_at_once_become_one_step(lab: Lab) -> None:
    """A burst that outruns the engine is one event, and nothing of it is missed."""
    market = Market(lab, seed=23)
    for _ in range(30):
        await market.step()
    async with open_world(lab) as world:
        await world.open_owners()
        for _ in range(10):
            await market.step()
            await lab.node.rpc("anvil_mine", ["0x5"])
            await lab.catch_up()
        await world.settled()
        await world.assert_exact()
        assert len(world.keeper.updates) < 60


async def test_reads_over_a_websocket_alone(lab: Lab) -> None:
    market = Market(lab, seed=24)
    for _ in range(30):
        await market.step()
    async with open_world(lab, reads="ws") as world:
        await world.open_owners()
        for _ in range(20):
            await market.step()
            await world.settled()
        await world.assert_exact()
