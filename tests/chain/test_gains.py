"""Gains and rates of real positions: prices of then from where they can be had, null where they can't."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any

from rtserver.demo.deployment import Pool
from rtserver.demo.lab import Lab
from rtserver.domain.errors import HistoryPruned
from rtserver.domain.ids import TokenId
from rtserver.worth.aggregator import Aggregator
from rtserver.worth.earnings import earnings_view

from .world import KIND, World, open_world

HOUR_S = 3_600


async def traded(lab: Lab, pool: Pool, at: int, index: int) -> None:
    """Mine a block with one trade in it."""
    side = pool.token0 if index % 2 == 0 else pool.token1
    await lab.swap(pool, index % 2 == 0, side.raw_of_usd(20_000 + 1_000 * (index % 3)))
    await lab.mine(timestamp=at)


async def price_of(lab: Lab, pool: Pool, block: str) -> Fraction:
    """Return token1 per token0 in raw units at a block, as the pool says it."""
    sqrt_price = (await lab.slot0(pool, block=block))[0]
    return Fraction(sqrt_price * sqrt_price, 1 << 192)


def usd(lab: Lab, pool: Pool, amounts: tuple[int, int], price: Fraction) -> Fraction:
    """Return dollars of raw amounts where one of the two tokens is a dollar."""
    dollars = {token.lower() for token in lab.deployment.stablecoins}
    if pool.token1.address.lower() in dollars:
        return Fraction(amounts[0] * price + amounts[1], 10**pool.token1.decimals)
    return Fraction(amounts[0] + amounts[1] / price, 10**pool.token0.decimals)


def view_of(world: World, token_id: int) -> dict[str, Any]:
    assert world.book is not None
    assert isinstance(world.prices, Aggregator)
    token = TokenId(token_id)
    return earnings_view(world.book.earnings(token), world.book.life(token), world.prices.prices)


async def test_gains_of_a_position_that_was_there_before_the_server(lab: Lab) -> None:
    await lab.mine()
    owner, pool = lab.owners[0], lab.pool("WETH", "USDC", 500)
    tick = pool.align(lab.pool_state(pool).tick)
    token_id = await lab.mint_now(owner, pool, tick - 3_000, tick + 3_000)
    minted = lab.head.hash
    began = lab.head.timestamp
    for index in range(6):
        await traded(lab, pool, began + 600 * (index + 1), index)
    async with open_world(lab) as world:
        await world.open_owners([owner])
        await world.remembered()
        assert world.book is not None
        first = view_of(world, token_id)
        # What the deposit was worth nobody has asked yet.
        assert (first["pnl"]["deposits"]["usd"], first["pnl"]["netUSD"]) == (None, None)
        assert first["pnl"]["priceSources"] == {"unknown": 1}
        # It is read at once, without a block: a first answer waits for just this.
        async with asyncio.timeout(20):
            await world.runner.price_past(KIND, TokenId(token_id))
        assert view_of(world, token_id)["pnl"]["priceSources"] == {"pool": 1}
        for index in range(6, 30):
            if index == 18:
                await lab.collect(token_id)
            await traded(lab, pool, began + 600 * (index + 1), index)
            await world.settled()
            if index == 18:
                collected = lab.head.hash
        await world.remembered()
        view = view_of(world, token_id)
        assert view["pnl"]["priceSources"] == {"pool": 1, "own": 1}
        life = world.book.life(TokenId(token_id))
        assert life is not None
        then = [await price_of(lab, pool, block) for block in (minted, collected, world.keeper.head)]
        deposit = usd(lab, pool, (life.deposited0, life.deposited1), then[0])
        assert abs(Fraction(view["pnl"]["deposits"]["usd"]) - deposit) < Fraction(2, 100)
        paid = usd(lab, pool, (life.collected0, life.collected1), then[1])
        # Own prices are the median over all pools of that block, not the position's alone.
        assert abs(Fraction(view["pnl"]["collected"]["usd"]) - paid) < paid / 100
        assert Fraction(view["pnl"]["impermanentLossUSD"]) <= Fraction(1, 100)
        (shown,) = world.positions()
        due = sum(Fraction(shown[name]) for name in ("valueUSD", "feesUSD"))
        net = due + Fraction(view["pnl"]["collected"]["usd"]) - Fraction(view["pnl"]["deposits"]["usd"])
        assert abs(Fraction(view["pnl"]["netUSD"]) - net) <= Fraction(2, 100)
        hour = view["aprs"]["1h"]
        assert HOUR_S <= hour["windowSeconds"] <= HOUR_S + 900
        earnings = world.book.earnings(TokenId(token_id))
        assert earnings is not None
        window = earnings.windows[0]
        fees = usd(lab, pool, (window.fees0, window.fees1), then[2])
        assert window.mean_cents is not None
        rate = fees * 100 / window.mean_cents * 31_536_000 / window.covered_s
        assert abs(Fraction(hour["feeAPR"][:-1]) / 100 - rate) < rate / 50
        assert hour["feeAPR"] == hour["APR"] != view["poolApr"]["APR"]


async def test_a_node_without_that_state_leaves_the_past_unpriced(lab: Lab) -> None:
    await lab.mine()
    owner, pool = lab.owners[0], lab.pool("WETH", "USDC", 500)
    tick = pool.align(lab.pool_state(pool).tick)
    token_id = await lab.mint_now(owner, pool, tick - 3_000, tick + 3_000)
    minted = lab.head.hash
    await lab.mine(3)
    async with open_world(lab) as world:
        await world.open_owners([owner])
        await world.remembered()
        assert world.book is not None
        call = world.reader.call

        async def pruned(calls: Any, block: Any, purpose: str) -> Any:
            if block == minted:
                raise HistoryPruned("missing trie node")
            return await call(calls, block, purpose)

        world.reader.call = pruned  # type: ignore[method-assign]
        world.book.want_prices(TokenId(token_id))
        await lab.mine()
        await world.settled()
        await world.keeper.until(lambda: view_of(world, token_id)["pnl"]["priceSources"] == {"none": 1})
        view = view_of(world, token_id)
        assert (view["pnl"]["deposits"]["usd"], view["pnl"]["netUSD"]) == (None, None)
        assert view["pnl"]["impermanentLossUSD"] is not None
        assert view["earnedAmountUSD"] == "0.00"


async def test_what_no_state_prices_is_asked_of_others(lab: Lab) -> None:
    await lab.mine()
    owner, pool = lab.owners[0], lab.pool("WETH", "USDC", 500)
    tick = pool.align(lab.pool_state(pool).tick)
    token_id = await lab.mint_now(owner, pool, tick - 3_000, tick + 3_000)
    minted, minted_at = lab.head.hash, lab.head.timestamp
    await lab.mine(3)
    async with open_world(lab) as world:
        assert world.book is not None
        book = world.book
        book.expect_then()
        await world.open_owners([owner])
        await world.remembered()
        call = world.reader.call

        async def pruned(calls: Any, block: Any, purpose: str) -> Any:
            if block == minted:
                raise HistoryPruned("missing trie node")
            return await call(calls, block, purpose)

        world.reader.call = pruned  # type: ignore[method-assign]
        token = TokenId(token_id)
        assert book.want_prices(token)
        await lab.mine()
        await world.keeper.until(lambda: book.then_query() is not None)
        query = book.then_query()
        assert query is not None
        # Its time is known, from the block that nobody keeps the state of.
        assert (query.at, query.positions) == (minted_at, (token,))
        assert set(query.tokens) == set(query.pair) == {pool.token0.address.lower(), pool.token1.address.lower()}
        assert book.want_prices(token)
        prices = dict.fromkeys(query.tokens, 100 << 128)
        book.absorb_then(query, prices, "defillama")
        assert (book.then_query(), book.want_prices(token)) == (None, False)
        life = book.life(token)
        assert life is not None
        view = view_of(world, token_id)
        assert view["pnl"]["priceSources"] == {"defillama": 1}
        assert view["pnl"]["deposits"]["usd"] == f"{life.deposited0 + life.deposited1}.00"
