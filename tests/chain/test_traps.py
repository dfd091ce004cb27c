"""The known traps of position arithmetic and of odd contracts, each on the real chain."""

import pytest

from rtserver.demo.deployment import Pool
from rtserver.demo.lab import Lab
from rtserver.domain.clmath.tick_math import sqrt_ratio_at_tick
from rtserver.domain.ids import Tick

from .counting import CountingProxy
from .world import World, open_world, owner_channel, pool_channel, position_channel


@pytest.fixture
def pool(lab: Lab) -> Pool:
    return lab.pool("WETH", "USDC", 500)


def near(lab: Lab, pool: Pool, offset: int) -> int:
    return pool.align(lab.pool_state(pool).tick + offset)


async def move_to(lab: Lab, pool: Pool, tick: int) -> None:
    """Swap until the price is exactly that of a tick, and mine."""
    target = sqrt_ratio_at_tick(Tick(tick))
    down = target < lab.pool_state(pool).sqrt_price
    await lab.swap(pool, down, sqrt_price_limit=target)
    await lab.mine()


async def settled_and_exact(world: World) -> None:
    await world.settled()
    await world.assert_exact()


async def test_fee_growth_wraps_below_zero(lab: Lab, pool: Pool) -> None:
    """Mint above, cross up and back, then mint below: inside wraps modulo 2^256."""
    owner = lab.owners[0]
    base = near(lab, pool, 0)
    step = pool.tick_spacing
    await lab.mint_now(owner, pool, base + 61 * step, base + 83 * step)
    await move_to(lab, pool, base + 90 * step)
    await move_to(lab, pool, base)
    async with open_world(lab) as world:
        await world.open_owners([owner])
        await lab.mint_now(owner, pool, base + 53 * step, base + 61 * step)
        await settled_and_exact(world)
        for target in (base + 57 * step, base + 90 * step, base - 10 * step, base + 61 * step, base):
            await move_to(lab, pool, target)
            await settled_and_exact(world)


async def test_the_tick_at_a_boundary_is_the_pools_own(lab: Lab, pool: Pool) -> None:
    """A swap down that stops exactly at a lower tick leaves tick = lower − 1 with the price of lower."""
    owner = lab.owners[0]
    lower, upper = near(lab, pool, -500), near(lab, pool, 500)
    token_id = await lab.mint_now(owner, pool, lower, upper)
    async with open_world(lab) as world:
        await world.open(position_channel(token_id))
        await move_to(lab, pool, lower + pool.tick_spacing)
        await settled_and_exact(world)
        assert world.position(token_id)["isActive"] is True
        await move_to(lab, pool, lower)
        await settled_and_exact(world)
        view = world.position(token_id)
        assert (view["tick"], view["isActive"]) == (lower - 1, False)
        await move_to(lab, pool, lower + 1)
        await settled_and_exact(world)
        assert world.position(token_id)["isActive"] is True
        await move_to(lab, pool, upper)
        await settled_and_exact(world)
        assert (world.position(token_id)["tick"], world.position(token_id)["isActive"]) == (upper, False)


async def test_a_cleared_tick_starts_again(lab: Lab, pool: Pool) -> None:
    owner, other = lab.owners[:2]
    lower, upper = near(lab, pool, -300), near(lab, pool, 300)
    first = await lab.mint_now(owner, pool, lower, upper)
    await lab.swap(pool, True, 10**18)
    await lab.mine()
    async with open_world(lab) as world:
        await world.open_owners((owner, other))
        await lab.decrease(first)
        await lab.mine()
        await settled_and_exact(world)
        assert world.owner(owner)[f"uniswap-v3:{first}"]["liquidity"] == "0"
        await lab.collect(first)
        await lab.mine()
        await settled_and_exact(world)
        second = await lab.mint_now(other, pool, lower, upper)
        await settled_and_exact(world)
        await lab.swap(pool, False, 2_000 * 10**6)
        await lab.mine()
        await settled_and_exact(world)
        assert world.owner(other)[f"uniswap-v3:{second}"]["collectable1"] != "0"
        await lab.burn(first)
        await lab.mine()
        await settled_and_exact(world)
        assert f"uniswap-v3:{first}" not in world.owner(owner)


async def test_shared_ranges_round_at_every_poke(lab: Lab, pool: Pool) -> None:
    """Two NFTs share one core position: what a collect pays is the lesser of what both are owed."""
    one, two = lab.owners[:2]
    lower, upper = near(lab, pool, -400), near(lab, pool, 400)
    first = await lab.mint_now(one, pool, lower, upper, usd=777.0)
    second = await lab.mint_now(two, pool, lower, upper, usd=3_333.0)
    async with open_world(lab) as world:
        await world.open(position_channel(first), position_channel(second))
        for index in range(30):
            await lab.swap(pool, index % 2 == 0, 10**15 + index if index % 2 == 0 else 3 * 10**6 + index)
            await lab.mine()
            await settled_and_exact(world)
            await (lab.poke(first) if index % 3 else lab.collect(second))
            await lab.mine()
            await settled_and_exact(world)


async def test_a_neighbour_that_is_not_tracked_shares_the_core_position(lab: Lab, pool: Pool) -> None:
    one, two = lab.owners[:2]
    lower, upper = near(lab, pool, -400), near(lab, pool, 400)
    watched = await lab.mint_now(one, pool, lower, upper)
    neighbour = await lab.mint_now(two, pool, lower, upper)
    async with open_world(lab) as world:
        await world.open(position_channel(watched))
        for _ in range(5):
            await lab.swap(pool, True, 10**16)
            await lab.collect(neighbour)
            await lab.mine()
            await settled_and_exact(world)
        await lab.burn(neighbour)
        await lab.mine()
        await settled_and_exact(world)


async def test_two_crossings_in_one_block(lab: Lab, pool: Pool) -> None:
    """Out of a range and back within a block flips its tick twice; start and end alone would miss it."""
    owner = lab.owners[0]
    start = lab.pool_state(pool).tick
    lower, upper = near(lab, pool, 200), near(lab, pool, 700)
    token_id = await lab.mint_now(owner, pool, lower, upper)
    async with open_world(lab) as world:
        await world.open(position_channel(token_id))
        up, back = sqrt_ratio_at_tick(Tick(upper + 100)), sqrt_ratio_at_tick(Tick(start))
        await lab.swap(pool, False, sqrt_price_limit=up)
        await lab.swap(pool, True, sqrt_price_limit=back)
        await lab.mine()
        await settled_and_exact(world)
        assert world.position(token_id)["collectable0"] != "0"
        inside = sqrt_ratio_at_tick(Tick(lower + 50))
        await lab.swap(pool, False, sqrt_price_limit=inside)
        await lab.swap(pool, True, sqrt_price_limit=back)
        await lab.mine()
        await settled_and_exact(world)


async def test_anyone_may_increase_a_position(lab: Lab, pool: Pool) -> None:
    owner = lab.owners[0]
    token_id = await lab.mint_now(owner, pool, near(lab, pool, -100), near(lab, pool, 100))
    async with open_world(lab) as world:
        await world.open_owners([owner])
        before = int(str(world.owner(owner)[f"uniswap-v3:{token_id}"]["liquidity"]))
        await lab.increase(lab.deployment.stranger, token_id, 10**17, 300 * 10**6)
        await lab.mine()
        await settled_and_exact(world)
        assert int(str(world.owner(owner)[f"uniswap-v3:{token_id}"]["liquidity"])) > before


async def test_fees_leave_out_withdrawn_principal(lab: Lab, pool: Pool) -> None:
    owner = lab.owners[0]
    token_id = await lab.mint_now(owner, pool, near(lab, pool, -300), near(lab, pool, 300))
    await lab.swap(pool, True, 10**17)
    await lab.mine()
    async with open_world(lab) as live:
        await live.open(position_channel(token_id))
        earned = live.position(token_id)
        assert earned["fees0"] == earned["collectable0"] != "0"
        await lab.decrease(token_id, lab.nft(token_id).liquidity // 2)
        await lab.mine()
        await settled_and_exact(live)
        after = live.position(token_id)
        assert abs(int(after["fees0"]) - int(earned["fees0"])) <= 2
        assert int(after["collectable0"]) > int(after["fees0"])
        # Learned from the position's own events, it is the same.
        async with open_world(lab) as late:
            await late.open(position_channel(token_id))
            assert late.position(token_id) == after
        await lab.collect(token_id)
        await lab.mine()
        await settled_and_exact(live)
        assert live.position(token_id)["fees0"] == live.position(token_id)["collectable0"] == "0"
        await lab.node.rpc("anvil_reorg", [2, []])
        await lab.catch_up()
        await settled_and_exact(live)
        assert live.position(token_id)["fees0"] == earned["fees0"]
        assert live.position(token_id)["collectable0"] == earned["collectable0"]


async def test_flash_loans_pay_fees(lab: Lab, pool: Pool) -> None:
    owner = lab.owners[0]
    token_id = await lab.mint_now(owner, pool, near(lab, pool, -300), near(lab, pool, 300))
    async with open_world(lab) as world:
        await world.open(position_channel(token_id))
        await lab.flash(pool, 10**18, 10**9, tip0=10**15, tip1=10**6)
        await lab.mine()
        await settled_and_exact(world)
        assert world.position(token_id)["collectable1"] != "0"


async def test_burned_and_unknown_tokens_are_empty_not_errors(lab: Lab, pool: Pool) -> None:
    owner = lab.owners[0]
    token_id = await lab.mint_now(owner, pool, near(lab, pool, -300), near(lab, pool, 300))
    await lab.burn(token_id)
    await lab.mine()
    async with open_world(lab) as world:
        await world.open(position_channel(token_id), position_channel(10**30), owner_channel("0x" + "12" * 20))
        assert world.keeper.states[position_channel(token_id).name] == {}
        assert world.keeper.states[position_channel(10**30).name] == {}
        assert world.owner("0x" + "12" * 20) == {}


async def test_a_pool_without_a_price(lab: Lab) -> None:
    """A pool that is not initialised has no price; initialised in a block, it has one in that block's step."""
    tokens = lab.deployment.tokens
    fresh = await lab.create_pool(tokens["UNI"], tokens["LINK"], 10000, sqrt_price=0)
    await lab.mine()
    async with open_world(lab) as world:
        await world.open(pool_channel(fresh.address))
        ((_, view),) = world.keeper.states[pool_channel(fresh.address).name].items()
        assert (view["sqrtPriceX96"], view["price"]) == ("0", None)
        await world.open(pool_channel(lab.owners[0]))
        assert world.keeper.refused[pool_channel(lab.owners[0]).name].code == "bad_channel"


async def test_many_positions_of_one_owner(lab: Lab, pool: Pool) -> None:
    """200 positions load in a few shared round trips and stay exact."""
    owner = lab.owners[0]
    for index in range(200):
        width = (index % 20 + 1) * pool.tick_spacing
        lower = near(lab, pool, (index % 7 - 3) * 100)
        await lab.mint(owner, pool, lower, lower + width, 10**15, 3 * 10**6)
        if index % 25 == 24:
            await lab.mine()
    async with CountingProxy(lab.node.http_url).running() as proxy, open_world(lab, http=proxy.url) as world:
        proxy.reset()
        await world.open_owners([owner])
        assert proxy.methods["eth_call"] <= 4
        assert await world.assert_exact() >= 200
        await lab.swap(pool, True, 10**17)
        await lab.mine()
        await settled_and_exact(world)
