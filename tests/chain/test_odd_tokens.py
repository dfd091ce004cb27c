"""Tokens that break a naive reader, each on the real chain: shown safely, flagged, unpriced, never dropped."""

from __future__ import annotations

from typing import Any

import pytest

from rtserver.demo.deployment import Pool, Token, full_range
from rtserver.demo.lab import Lab
from rtserver.protocols.channels import PricesChannel

from .world import CHAIN, World, open_world, pool_channel, position_channel


async def position_in(lab: Lab, token: Token) -> tuple[Pool, int]:
    """Return a pool of a token against WETH, and the first owner's position in it."""
    pool = await lab.create_pool(token, lab.deployment.tokens["WETH"], 3000)
    await lab.mine()
    tx = await lab.mint(lab.owners[0], pool, *full_range(pool.tick_spacing), 10**18, 10**18)
    await lab.mine()
    return pool, lab.token_id(tx)


async def settled_and_exact(world: World) -> None:
    await world.settled()
    await world.assert_exact()


def token_in(view: dict[str, Any], token: Token) -> dict[str, Any]:
    """Return how a position shows one of its tokens."""
    shown: dict[str, Any] = next(
        view[side] for side in ("token0", "token1") if view[side]["address"].lower() == token.address
    )
    return shown


@pytest.mark.parametrize(
    ("kind", "symbol", "decimals", "flags"),
    [
        ("bytes32", "MKR", 18, []),
        ("no-symbol", None, 6, ["symbolMissing"]),
        ("no-decimals", "ODD", None, ["decimalsMissing"]),
        ("huge-decimals", "ODD", None, ["decimalsMissing"]),
        ("hostile", "<img src=x onerror=alert(1)>[31m", 18, ["symbolAltered", "symbolMarkup"]),
        ("fee", "FEE", 18, []),
        ("rebasing", "stREB", 18, []),
    ],
)
async def test_each_follows_its_pool_block_by_block(
    lab: Lab, kind: str, symbol: str | None, decimals: int | None, flags: list[str]
) -> None:
    """Amounts are the pool's own, whatever the token says of itself; it has no price and so no value."""
    token = (await lab.create_odd_tokens())[kind]
    pool, token_id = await position_in(lab, token)
    async with open_world(lab) as world:
        await world.open(position_channel(token_id), pool_channel(pool.address))
        for index in range(4):
            await lab.swap(pool, index % 2 == 0, 10**16)
            await lab.mine()
            await settled_and_exact(world)
        view = world.position(token_id)
        shown = token_in(view, token)
        assert shown["symbol"] == (symbol or f"{shown['address'][:6]}…{shown['address'][-4:]}")
        assert (shown["decimals"], shown["flags"]) == (decimals, flags)
        assert (view["price"] is None) is (decimals is None)
        unknown = ("valueUSD", "feesUSD", "rewardsUSD", "priceDeviation")
        assert {name: view[name] for name in unknown} == dict.fromkeys(unknown)
        assert min(int(view[name]) for name in ("amount0", "amount1", "collectable0", "collectable1")) > 0


async def test_a_balance_that_grows_or_shrinks_changes_nothing_that_the_pool_owes(lab: Lab) -> None:
    """A pool counts what it was paid: a rebase moves its balance, not its debts. Shrunk, it can't pay them any more."""
    token = (await lab.create_odd_tokens())["rebasing"]
    pool, token_id = await position_in(lab, token)
    await lab.swap(pool, True, 10**16)
    await lab.mine()
    async with open_world(lab) as world:
        await world.open(position_channel(token_id))
        before = dict(world.position(token_id))
        await lab.rebase(token, 12_000)
        await lab.mine()
        await settled_and_exact(world)
        assert world.position(token_id) == before
        await lab.rebase(token, 5_000)
        await lab.mine()
        await world.settled()
        assert world.position(token_id) == before
        # What withdrawing would free is the pool's own arithmetic still; paying it out would fail.
        assert await lab.principal(token_id) == (int(before["amount0"]), int(before["amount1"]))
        await lab.decrease(token_id)
        await lab.mine()
        await lab.collect(token_id)
        mined = await lab.mine(allow_failures=True)
        assert mined.failed
        await world.settled()
        assert int(world.position(token_id)["collectable0"]) >= int(before["amount0"])
        await lab.rebase(token, 10_000)
        await lab.collect(token_id)
        await lab.mine()
        await settled_and_exact(world)
        assert world.position(token_id)["collectable0"] == "0"


async def test_odd_tokens_are_shown_and_never_dropped(lab: Lab) -> None:
    odd = await lab.create_odd_tokens()
    weth = lab.deployment.tokens["WETH"]
    owner = lab.owners[0]
    ids = {}
    for name, token in odd.items():
        pool = await lab.create_pool(token, weth, 3000)
        await lab.mine()
        tx = await lab.mint(owner, pool, *full_range(pool.tick_spacing), 10**15, 10**15)
        await lab.mine()
        ids[name] = lab.token_id(tx)
    async with open_world(lab) as world:
        await world.open_owners([owner])
        await world.assert_exact()
        views = {name: world.owner(owner)[f"uniswap-v3:{token_id}"] for name, token_id in ids.items()}

        def told(name: str) -> dict[str, object]:
            view = views[name]
            token0, token1 = view["token0"], view["token1"]
            assert isinstance(token0, dict) and isinstance(token1, dict)
            return dict(token0 if str(token0["address"]).lower() == odd[name].address else token1)

        assert told("bytes32")["symbol"] not in ("", None)
        assert "…" in str(told("no-symbol")["symbol"])
        assert told("no-decimals")["decimals"] is None
        assert told("huge-decimals")["decimals"] is None
        assert views["huge-decimals"]["price"] is None
        assert not any(ord(character) < 32 for character in str(told("hostile")["symbol"]))
        assert all(view["valueUSD"] is None for view in views.values())
        assert {name: told(name)["flags"] for name in odd} == {
            "bytes32": [],
            "no-symbol": ["symbolMissing"],
            "no-decimals": ["decimalsMissing"],
            "huge-decimals": ["decimalsMissing"],
            "hostile": ["symbolAltered", "symbolMarkup"],
            "fee": [],
            "rebasing": [],
        }
        assert told("bytes32")["symbol"] == "MKR"
        # Without a price they are in the prices, too, and say so.
        await world.open(PricesChannel(CHAIN))
        prices = world.keeper.states[PricesChannel(CHAIN).name]
        for name in odd:
            assert prices[str(told(name)["address"])]["priceUSD"] is None


async def test_a_token_that_is_gone_keeps_its_position(lab: Lab) -> None:
    """A token can destroy itself: its pool and the position in it remain."""
    odd = await lab.create_odd_tokens()
    gone = odd["bytes32"].address
    pool = await lab.create_pool(odd["bytes32"], lab.deployment.tokens["WETH"], 3000)
    await lab.mine()
    tx = await lab.mint(lab.owners[0], pool, *full_range(pool.tick_spacing), 10**15, 10**15)
    await lab.mine()
    token_id = lab.token_id(tx)
    await lab.node.rpc("anvil_setCode", [gone, "0x"])
    await lab.mine()
    async with open_world(lab) as world:
        await world.open(position_channel(token_id))
        view = world.position(token_id)
        shown = next(view[side] for side in ("token0", "token1") if view[side]["address"].lower() == gone)
        assert shown["flags"] == ["noCode", "symbolMissing", "decimalsMissing"]
        assert (shown["decimals"], view["price"], view["valueUSD"]) == (None, None, None)
        assert int(view["amount0"]) > 0
        assert int(view["amount1"]) > 0


async def test_transfer_to_a_fee_on_transfer_pool_keeps_exact_amounts(lab: Lab) -> None:
    """Fees on transfer change what arrives in a wallet, not what the pool owes: the answers stay equal."""
    odd = await lab.create_odd_tokens()
    weth = lab.deployment.tokens["WETH"]
    owner = lab.owners[0]
    pool = await lab.create_pool(odd["fee"], weth, 3000)
    await lab.mine()
    tx = await lab.mint(owner, pool, *full_range(pool.tick_spacing), 10**18, 10**18)
    await lab.mine()
    token_id = lab.token_id(tx)
    await lab.set_transfer_fee(odd["fee"], 500)
    await lab.mine()
    async with open_world(lab) as world:
        await world.open(position_channel(token_id))
        await world.assert_exact()
