"""What rewards and claims are worth: amount × price at every block, whoever holds the token that they are paid in."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from rtserver.demo.deployment import Incentive, full_range
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market, MarketConfig
from rtserver.protocols.addresses import checksum

from .staking import Crowd, Staker, assert_staking
from .test_prices import PRICES
from .world import World, open_world, position_channel, rewards_channel


def value_of(world: World, token: dict[str, Any], amount: str | None) -> Fraction | None:
    """Return an amount times the price shown beside it, as a reader would compute it."""
    price = world.keeper.states[PRICES.name].get(token["address"], {}).get("priceUSD")
    if amount == "0":
        return Fraction(0)
    if price is None or amount is None:
        return None
    return Fraction(int(amount), 10 ** int(token["decimals"])) * Fraction(str(price))


def assert_near(told: Any, exact: Fraction | None) -> bool:
    """Compare to half a cent; return whether there is a value."""
    if exact is None:
        assert told is None
        return False
    assert abs(Fraction(told) - exact) <= Fraction(1, 200) + exact / 10**15, (told, float(exact))
    return True


def assert_reward_values(world: World) -> int:
    """Compare every value of a reward and of a claim; return how many are known."""
    known = 0
    for view in world.positions():
        if not view["rewards"]:
            assert view["rewardsUSD"] is None
            continue
        parts = [value_of(world, place["token"], place["amount"]) for place in view["rewards"]["places"]]
        whole = None if None in parts else sum((part for part in parts if part is not None), Fraction(0))
        known += assert_near(view["rewardsUSD"], whole)
    for name, state in world.keeper.states.items():
        if name.startswith("rewards:"):
            claims: list[dict[str, Any]] = list(state.values())
            known += sum(assert_near(one["valueUSD"], value_of(world, one["token"], one["amount"])) for one in claims)
    return known


async def test_every_block_of_a_market_with_stakers(lab: Lab) -> None:
    market, staker = Market(lab, seed=6, config=MarketConfig(seconds_per_block=7)), Staker(lab)
    crowd = Crowd(staker, 6)
    await lab.mine()
    for _ in range(50):
        await crowd.act()
        await market.step()
    known = 0
    # A pace of its own for rewards, so that most blocks move prices alone.
    async with open_world(lab, staking=True, rewards_every_s=30) as world:
        await world.open(PRICES)
        await world.open_owners(lab.owners)
        await world.open(*map(rewards_channel, lab.owners))
        for _ in range(40):
            await crowd.act()
            await market.step()
            await world.settled()
            known += assert_reward_values(world)
        await world.assert_exact()
        await assert_staking(world, staker)
    assert known > 200, known


async def _staked(lab: Lab, token: str) -> tuple[Staker, Incentive, int]:
    """Return a position of the first owner, staked in a new incentive that pays in a token."""
    await lab.mine()
    staker, pool = Staker(lab), lab.pool("WETH", "USDC", 500)
    start = lab.head.timestamp + 5
    incentive = await staker.create(token, pool.address, start=start, end=start + 10_000, amount=10**23)
    tick = pool.align(lab.pool_state(pool).tick)
    token_id = await lab.mint_now(lab.owners[0], pool, tick - 2_000, tick + 2_000)
    await lab.mine(timestamp=start + 1)
    await staker.deposit(lab.owners[0], token_id, incentive)
    await lab.mine(timestamp=start + 2)
    return staker, incentive, token_id


async def test_a_token_that_no_position_holds_is_priced_for_its_rewards(lab: Lab) -> None:
    link = lab.deployment.tokens["LINK"]
    staker, incentive, token_id = await _staked(lab, link.address)
    deep = lab.pool("LINK", "USDC", 10000)
    async with open_world(lab, staking=True) as world:
        await world.open(PRICES, position_channel(token_id), rewards_channel(lab.owners[0]))
        await world.keeper.until(lambda: world.position(token_id)["rewardsUSD"] is not None)
        await lab.mine(timestamp=lab.head.timestamp + 500)
        await world.settled()
        assert assert_reward_values(world) == 1
        assert world.keeper.states[PRICES.name][checksum(link.address)]["source"] == "pools"
        before = dict(world.position(token_id))
        # Its price moves: so does the value, in that very block, and no amount of the position's.
        await lab.swap(deep, deep.token0.address == link.address, 10**21)
        await lab.mine(timestamp=lab.head.timestamp + 1)
        await world.settled()
        assert_reward_values(world)
        after = world.position(token_id)
        assert after["amount0"] == before["amount0"]
        assert Fraction(after["rewardsUSD"]) != Fraction(before["rewardsUSD"])
        # Unstaked it is a claim, and that has a value, too.
        await staker.unstake(lab.owners[0], token_id, incentive)
        await lab.mine(timestamp=lab.head.timestamp + 100)
        await world.settled()
        assert world.position(token_id)["rewardsUSD"] is None
        assert assert_reward_values(world) == 1


async def test_without_a_price_there_is_no_value_and_with_one_there_is(lab: Lab) -> None:
    odd = await lab.create_odd_tokens()
    token = odd["bytes32"]
    await lab.send(lab.actions.approve(lab.deployment.house, token.address, lab.deployment.staker))
    _, _, token_id = await _staked(lab, token.address)
    async with open_world(lab, staking=True) as world:
        await world.open(PRICES, position_channel(token_id))
        await world.keeper.until(lambda: world.position(token_id)["rewards"] is not None)
        # It has earned nothing yet: that is worth nothing, whatever the price.
        assert world.position(token_id)["rewardsUSD"] == "0.00"
        await lab.mine(timestamp=lab.head.timestamp + 100)
        await world.settled()
        assert world.position(token_id)["rewards"]["places"][0]["amount"] != "0"
        assert world.position(token_id)["rewardsUSD"] is None
        # Someone opens a pool against dollars, and makes it deep enough to be believed.
        pool = await lab.create_pool(token, lab.deployment.tokens["USDC"], 3000)
        await lab.mine(timestamp=lab.head.timestamp + 10)
        await world.settled()
        await lab.mint_now(lab.owners[1], pool, *full_range(pool.tick_spacing), usd=100_000)
        await world.settled()
        await lab.swap(pool, True, 10**6)
        await lab.mine(timestamp=lab.head.timestamp + 10)
        await world.settled()
        assert assert_reward_values(world) == 1
