"""Every way of batching reads gives the same exact state on a real node, where the node runs it."""

import pytest

from rtserver.chain.evm_batch import Way
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market

from .world import open_world


@pytest.mark.parametrize("way", [Way.OVERRIDE, Way.DEPLOYLESS, Way.JSON_BATCH])
async def test_all_ways_of_batching_are_exact(lab: Lab, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    market = Market(lab, seed=31)
    await market.steps(40)
    async with open_world(lab) as world:
        (chosen,) = world.reader.ways.values()
        assert chosen is Way.OVERRIDE, "anvil runs the best way"
        monkeypatch.setattr(world.reader, "ways", dict.fromkeys(world.reader.ways, way))
        await world.open_owners()
        assert await world.assert_exact() > 10
        for _ in range(10):
            await market.step()
            await world.settled()
            await world.assert_exact()
