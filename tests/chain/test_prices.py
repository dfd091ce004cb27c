"""Prices on the real chain: feeds and pools read in the block's own call, right after reorganisations, never kept."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from rtserver.demo.deployment import full_range
from rtserver.demo.lab import Lab
from rtserver.domain.update import BlockUpdate
from rtserver.protocols.addresses import checksum
from rtserver.protocols.channels import PricesChannel
from rtserver.worth.aggregator import PricePolicy

from .counting import CountingProxy
from .feeds import LabFeed, deploy_feed
from .world import CHAIN, World, open_world, owner_channel

PRICES = PricesChannel(CHAIN)


@pytest.fixture
async def feed(lab: Lab) -> LabFeed:
    """WETH's feed, at 3000 dollars."""
    made = await deploy_feed(lab, lab.deployment.weth)
    await made.transmit(3000 * 10**8)
    await lab.mine()
    return made


def price_of(world: World, token: str) -> dict[str, Any]:
    return world.keeper.states[PRICES.name][checksum(token.lower())]


def assert_values(world: World, owner: str) -> int:
    """Compare every value with amount × shown price, as a reader would compute it; return how many have one."""
    prices = {
        view["token"]: Fraction(str(view["priceUSD"]))
        for view in world.keeper.states[PRICES.name].values()
        if view["priceUSD"] is not None
    }
    count = 0
    for view in world.owner(owner).values():
        sides: Any = [(view["token0"], view["amount0"]), (view["token1"], view["amount1"])]
        held = [(token, int(amount)) for token, amount in sides if int(amount)]
        if any(token["address"] not in prices for token, _ in held):
            assert view["valueUSD"] is None
            continue
        exact = sum(prices[token["address"]] * amount / 10 ** token["decimals"] for token, amount in held)
        assert abs(Fraction(str(view["valueUSD"])) - exact) <= Fraction(1, 200) + exact / 10**15
        count += 1
    return count


async def mint(lab: Lab, owner: str, symbol_a: str, symbol_b: str, fee_pips: int) -> int:
    pool = lab.pool(symbol_a, symbol_b, fee_pips)
    return await lab.mint_now(owner, pool, *full_range(pool.tick_spacing))


def keys_of(update: BlockUpdate, channel: str) -> set[str]:
    """Return which objects of a channel a step touched."""
    change = update.changes.get(channel)
    touched = set() if change is None else {*change.set, *change.patch, *change.remove}
    return touched | update.patched.get(channel, {}).keys()


async def pass_a_minute(lab: Lab, world: World) -> None:
    """Let a minute of the chain's time pass: the block after it reads feeds that logged nothing."""
    await lab.mine(timestamp=lab.head.timestamp + 61)
    await world.settled()
    await lab.mine()
    await world.settled()


async def test_an_answer_revalues_its_holders_in_the_frame_of_its_block(lab: Lab, feed: LabFeed) -> None:
    owner = lab.owners[0]
    with_weth = await mint(lab, owner, "WETH", "USDC", 500)
    without = await mint(lab, owner, "DAI", "USDC", 100)
    async with (
        CountingProxy(lab.node.http_url).running() as proxy,
        open_world(lab, http=proxy.url, feeds=[feed.feed()]) as world,
    ):
        await world.open(PRICES)
        await world.open_owners([owner])
        assert assert_values(world, owner) == 2
        proxy.reset()
        await feed.transmit(3333_12345678)
        await lab.mine()
        await world.settled()
        assert proxy.methods == {"eth_getLogs": 1, "eth_call": 1}
        shown = price_of(world, lab.deployment.weth)
        assert (shown["priceUSD"], shown["source"]) == ("3333.12345678", "chainlink")
        assert shown["asOf"] == lab.head.timestamp
        update = world.keeper.updates[-1]
        assert update.header.hash == lab.head.hash
        assert keys_of(update, owner_channel(owner).name) == {f"uniswap-v3:{with_weth}"}
        assert keys_of(update, PRICES.name) == {checksum(feed.token)}
        assert f"uniswap-v3:{without}" in world.owner(owner)
        assert assert_values(world, owner) == 2
        # The pools say 3000: too far from the feed, and said to be, while the feed decides.
        assert shown["disputed"] is True
        assert set(shown["others"]) == {"pools"}
        await world.assert_exact()


async def test_an_empty_block_still_takes_no_call(lab: Lab, feed: LabFeed) -> None:
    async with (
        CountingProxy(lab.node.http_url).running() as proxy,
        open_world(lab, http=proxy.url, feeds=[feed.feed()]) as world,
    ):
        await mint(lab, lab.owners[0], "WETH", "USDC", 500)
        await world.open_owners([lab.owners[0]])
        await world.settled()
        proxy.reset()
        for _ in range(5):
            await lab.mine()
            await world.settled()
        assert proxy.requests == 0


async def test_a_stale_round_gives_way_to_the_pools(lab: Lab, feed: LabFeed) -> None:
    owner = lab.owners[0]
    await mint(lab, owner, "WETH", "USDC", 500)
    async with open_world(lab, feeds=[feed.feed(max_age_s=3600)]) as world:
        await world.open(PRICES)
        await world.open_owners([owner])
        assert price_of(world, lab.deployment.weth)["source"] == "chainlink"
        await lab.mine(timestamp=lab.head.timestamp + 4000)
        await world.settled()
        assert price_of(world, lab.deployment.weth)["source"] == "pools"
        assert assert_values(world, owner) == 1
        # A round that was late when it came is as stale as one that stayed.
        await feed.transmit(3100 * 10**8, lab.head.timestamp - 3601)
        await lab.mine()
        await world.settled()
        assert price_of(world, lab.deployment.weth)["source"] == "pools"
        await feed.transmit(3100 * 10**8)
        await lab.mine()
        await world.settled()
        assert price_of(world, lab.deployment.weth)["priceUSD"] == "3100"
        assert assert_values(world, owner) == 1


@pytest.mark.parametrize("answer", [-1, 0, -(2**255), 2**255 - 1])
async def test_an_answer_that_is_no_price_is_none(lab: Lab, feed: LabFeed, answer: int) -> None:
    async with open_world(lab, feeds=[feed.feed()]) as world:
        await mint(lab, lab.owners[0], "WETH", "USDC", 500)
        await world.open(PRICES)
        await world.open_owners([lab.owners[0]])
        await feed.transmit(answer)
        await lab.mine()
        await world.settled()
        assert price_of(world, lab.deployment.weth)["source"] == "pools"
        assert assert_values(world, lab.owners[0]) == 1


async def test_a_feed_that_reverts_is_noticed_within_a_minute(lab: Lab, feed: LabFeed) -> None:
    await mint(lab, lab.owners[0], "WETH", "USDC", 500)
    async with open_world(lab, feeds=[feed.feed()]) as world:
        await world.open(PRICES)
        await world.open_owners([lab.owners[0]])
        await feed.break_down(True)
        await pass_a_minute(lab, world)
        assert price_of(world, lab.deployment.weth)["source"] == "pools"
        await feed.break_down(False)
        await pass_a_minute(lab, world)
        assert price_of(world, lab.deployment.weth)["source"] == "chainlink"


async def test_what_is_no_feed_is_no_quote(lab: Lab) -> None:
    """An address without code, a token, and a feed without an answer: pools price their tokens."""
    await mint(lab, lab.owners[0], "WETH", "USDC", 500)
    silent = await deploy_feed(lab, lab.deployment.weth)
    weth = lab.deployment.weth
    for address in (silent.proxy, "0x" + "9" * 40, lab.deployment.tokens["DAI"].address.lower()):
        pretender = LabFeed(lab, weth, address, address)
        async with open_world(lab, feeds=[pretender.feed()]) as world:
            await world.open(PRICES)
            await world.open_owners([lab.owners[0]])
            assert price_of(world, weth)["source"] == "pools"


@pytest.mark.parametrize("decimals", [0, 6, 18])
async def test_another_aggregator_behind_the_proxy(lab: Lab, feed: LabFeed, decimals: int) -> None:
    await mint(lab, lab.owners[0], "WETH", "USDC", 500)
    async with open_world(lab, feeds=[feed.feed()]) as world:
        await world.open(PRICES)
        await world.open_owners([lab.owners[0]])
        await feed.upgrade(decimals)
        await pass_a_minute(lab, world)
        assert price_of(world, lab.deployment.weth)["source"] == "pools"
        # From here on it is the new one whose logs are waited for.
        await feed.transmit(3210 * 10**decimals)
        await lab.mine()
        await world.settled()
        assert price_of(world, lab.deployment.weth)["priceUSD"] == "3210"
        assert assert_values(world, lab.owners[0]) == 1


async def test_a_block_that_is_undone_leaves_no_price(lab: Lab, feed: LabFeed) -> None:
    owner = lab.owners[0]
    await mint(lab, owner, "WETH", "USDC", 500)
    async with open_world(lab, feeds=[feed.feed()]) as world:
        await world.open(PRICES)
        await world.open_owners([owner])
        for _ in range(3):
            await feed.transmit(4000 * 10**8)
            await lab.mine()
        await world.settled()
        assert price_of(world, lab.deployment.weth)["priceUSD"] == "4000"
        await lab.node.rpc("anvil_reorg", [3, []])
        await lab.catch_up()
        await world.settled()
        assert any(update.rollback is not None for update in world.keeper.updates)
        assert price_of(world, lab.deployment.weth)["priceUSD"] == "3000"
        fresh = await world.fresh()
        assert fresh.states[owner_channel(owner).name] == world.keeper.states[owner_channel(owner).name]
        assert assert_values(world, owner) == 1


async def test_through_one_hop_a_token_without_a_dollar_pool_has_a_price(lab: Lab) -> None:
    owner = lab.owners[0]
    await mint(lab, owner, "UNI", "WETH", 3000)
    async with open_world(lab) as world:
        await world.open(PRICES)
        await world.open_owners([owner])
        assert assert_values(world, owner) == 0
    async with open_world(lab, hops=[lab.deployment.weth]) as world:
        await world.open(PRICES)
        await world.open_owners([owner])
        shown = price_of(world, lab.deployment.tokens["UNI"].address)
        assert shown["source"] == "pools"
        assert abs(Fraction(shown["priceUSD"]) - 8) < Fraction(1, 10)
        assert assert_values(world, owner) == 1
        before = Fraction(shown["priceUSD"])
        # WETH moves, UNI's own pool does not: its price follows in the same frame.
        for pool in (lab.pool("WETH", "USDC", 500), lab.pool("WETH", "USDC", 3000)):
            await lab.swap(pool, pool.token0.symbol == "WETH", 300 * 10**18)
        await lab.mine()
        await world.settled()
        assert Fraction(price_of(world, lab.deployment.tokens["UNI"].address)["priceUSD"]) != before
        assert assert_values(world, owner) == 1
        await world.assert_exact()


async def test_shallow_pools_price_nothing(lab: Lab) -> None:
    await mint(lab, lab.owners[0], "WETH", "USDC", 500)
    async with open_world(lab, policy=PricePolicy(min_depth_usd=10**9)) as world:
        await world.open(PRICES)
        await world.open_owners([lab.owners[0]])
        shown = price_of(world, lab.deployment.weth)
        assert (shown["priceUSD"], shown["source"]) == (None, None)
        assert all(view["valueUSD"] is None for view in world.owner(lab.owners[0]).values())
        await world.assert_exact()


async def test_prices_leave_with_the_last_who_watches(lab: Lab, feed: LabFeed) -> None:
    owner = lab.owners[0]
    await mint(lab, owner, "UNI", "WETH", 3000)
    await mint(lab, owner, "WETH", "USDC", 500)
    async with open_world(lab, hops=[lab.deployment.weth], feeds=[feed.feed()]) as world:
        await world.open(PRICES)
        await world.open_owners([owner])
        uni = checksum(lab.deployment.tokens["UNI"].address.lower())
        assert uni in world.keeper.states[PRICES.name]
        world.runner.unwant(owner_channel(owner))
        await lab.mine()
        await world.settled()
        assert uni not in world.keeper.states[PRICES.name]
