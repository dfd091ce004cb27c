"""`priceDeviation`: a pool that stands away from the prices of its tokens is flagged, in that very block."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from rtserver.demo.deployment import Pool
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.domain.clmath.tick_math import sqrt_ratio_at_tick
from rtserver.domain.ids import Tick

from .test_prices import PRICES, mint
from .world import World, open_world, pool_channel, position_channel


async def move_by(lab: Lab, pool: Pool, ticks: int) -> None:
    """Move a pool's price by ticks (hundredths of a percent), and mine."""
    target = sqrt_ratio_at_tick(Tick(lab.pool_state(pool).tick + ticks))
    await lab.swap(pool, ticks < 0, sqrt_price_limit=target)
    await lab.mine()


def expected(world: World, view: dict[str, Any], limit: Fraction) -> bool | None:
    """Return what a reader would say, from the pool's price and those of the two tokens."""
    prices = world.keeper.states[PRICES.name]
    told = [prices.get(view[side]["address"], {}).get("priceUSD") for side in ("token0", "token1")]
    if None in told or view["price"] is None:
        return None
    implied = Fraction(str(told[0])) / Fraction(str(told[1]))
    return abs(Fraction(view["price"]) - implied) > limit * implied


async def test_one_pool_of_several_is_moved_away_and_comes_back(lab: Lab) -> None:
    pool = lab.pool("WETH", "USDT", 500)
    token_id = await mint(lab, lab.owners[0], "WETH", "USDT", 500)
    other = await mint(lab, lab.owners[0], "WETH", "USDC", 500)
    async with open_world(lab) as world:
        await world.open(PRICES, position_channel(token_id), position_channel(other), pool_channel(pool.address))
        shown = []
        for ticks in (0, 500, -500, 0):
            if ticks:
                await move_by(lab, pool, ticks)
            else:
                await lab.mine()
            await world.settled()
            view = world.position(token_id)
            assert view["priceDeviation"] is expected(world, view, Fraction(2, 100))
            ((_, shown_pool),) = world.keeper.states[pool_channel(pool.address).name].items()
            assert shown_pool["priceDeviation"] is view["priceDeviation"]
            assert world.position(other)["priceDeviation"] is False
            shown.append(view["priceDeviation"])
        assert shown == [False, True, False, False]
        await world.assert_exact()
        fresh = await world.fresh()
        assert fresh.states == world.keeper.states


async def test_a_reorg_takes_the_flag_back(lab: Lab) -> None:
    pool = lab.pool("WETH", "USDT", 500)
    token_id = await mint(lab, lab.owners[0], "WETH", "USDT", 500)
    await lab.mine()
    async with open_world(lab) as world:
        await world.open(PRICES, position_channel(token_id))
        await move_by(lab, pool, 500)
        await world.settled()
        assert world.position(token_id)["priceDeviation"] is True
        await lab.node.rpc("anvil_reorg", [1, []])
        await lab.catch_up()
        await world.settled()
        assert world.position(token_id)["priceDeviation"] is False
        await world.assert_exact()


async def test_every_block_of_a_market(lab: Lab) -> None:
    market = Market(lab, seed=4)
    await market.steps(30)
    async with open_world(lab) as world:
        await world.open(PRICES)
        await world.open_owners()
        seen: set[bool | None] = set()
        for _ in range(30):
            await market.step()
            await world.settled()
            for view in world.positions():
                assert view["priceDeviation"] is expected(world, view, Fraction(2, 100)), view
                seen.add(view["priceDeviation"])
        assert False in seen


async def test_without_a_price_nothing_deviates(lab: Lab) -> None:
    odd = await lab.create_odd_tokens()
    pool = await lab.create_pool(odd["bytes32"], lab.deployment.tokens["WETH"], 3000)
    await lab.mine()
    token_id = await lab.mint_now(lab.owners[0], pool, -600, 600, usd=100)
    async with open_world(lab) as world:
        await world.open(position_channel(token_id))
        assert world.position(token_id)["priceDeviation"] is None
