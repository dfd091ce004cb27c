"""The lab against the real contracts: what an action promises is what the chain then says."""

from __future__ import annotations

import asyncio

import pytest

from rtserver.demo.actions import SwapLeg
from rtserver.demo.lab import Lab
from rtserver.demo.odd_tokens import HOSTILE_SYMBOL
from rtserver.demo.reading import read_book
from rtserver.demo.rpc import RpcError
from rtserver.demo.session import TxFailed


async def test_tests_run_on_uvloop() -> None:
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")


async def test_the_deployment_is_what_it_says(lab: Lab) -> None:
    manager, contract = lab.deployment.position_manager, lab.contracts.position_manager
    assert (await lab.call(contract, manager, "factory")) == (lab.deployment.factory,)
    assert (await lab.call(contract, manager, "WETH9")) == (lab.deployment.weth,)
    for pool in lab.pools:
        assert await lab.call(lab.contracts.pool, pool.address, "token0") == (pool.token0.address,)
        assert await lab.call(lab.contracts.pool, pool.address, "fee") == (pool.fee_pips,)
        assert await lab.call(lab.contracts.pool, pool.address, "tickSpacing") == (pool.tick_spacing,)
        found = await lab.call(
            lab.contracts.factory,
            lab.deployment.factory,
            "getPool",
            pool.token0.address,
            pool.token1.address,
            pool.fee_pips,
        )
        assert found == (pool.address,)
    for token in lab.deployment.tokens.values():
        decimals = await lab.call(lab.contracts.token, token.address, "decimals")
        assert decimals == (token.decimals,)
    assert {pool.fee_pips for pool in lab.pools} == {100, 500, 3000, 10000}
    assert {token.decimals for token in lab.deployment.tokens.values()} == {6, 8, 18}


async def test_a_position_lives(lab: Lab) -> None:
    pool, (owner, other, *_) = lab.pool("WETH", "USDC", 500), lab.owners
    lower = pool.align(lab.pool_state(pool).tick) - 100
    token_id = await lab.mint_now(owner, pool, lower, lower + 200)
    nft = lab.nft(token_id)
    assert (nft.owner, nft.pool, nft.lower, nft.upper) == (owner, pool.address, lower, lower + 200)
    assert nft.liquidity == (await lab.position(token_id))[7] > 0
    assert await lab.collectable(token_id) == (0, 0)

    await lab.swap(pool, True, pool.token0.raw_of_usd(50_000))
    await lab.flash(pool, 10**18, 10**9, tip1=1_000_000)
    await lab.mine()
    fees = await lab.collectable(token_id)
    assert min(fees) > 0

    await lab.increase(lab.deployment.stranger, token_id, 10**18, 10**10)
    await lab.mine()
    assert lab.nft(token_id).liquidity > nft.liquidity

    await lab.decrease(token_id)
    await lab.mine()
    assert lab.nft(token_id).liquidity == 0
    assert await lab.principal(token_id) == (0, 0)
    assert sum(await lab.collectable(token_id)) > sum(fees)

    await lab.transfer(token_id, other)
    await lab.mine()
    assert lab.book.owned_by(other) == [token_id]
    await lab.burn(token_id)
    await lab.mine()
    assert token_id not in lab.book.nfts
    with pytest.raises(RpcError, match="Invalid token ID"):
        await lab.position(token_id)


async def test_what_is_sent_together_lands_in_one_block_in_order(lab: Lab) -> None:
    pool = lab.pool("DAI", "USDC", 100)
    tick = lab.pool_state(pool).tick
    minted = [await lab.mint(owner, pool, tick - 10, tick + 10, 10**18, 10**6) for owner in lab.owners[:5]]
    swapped = await lab.swap(pool, False, 10**9)
    block = await lab.mine()
    assert [r["transactionHash"] for r in block.receipts] == [*minted, swapped]
    ids = [lab.token_id(tx_hash) for tx_hash in minted]
    assert ids == list(range(ids[0], ids[0] + 5))
    assert [lab.nft(i).owner for i in ids] == list(lab.owners[:5])


async def test_a_swap_with_a_limit_ends_exactly_there(lab: Lab) -> None:
    pool = lab.pool("WBTC", "WETH", 3000)
    before = lab.pool_state(pool).sqrt_price
    limit = before * 999 // 1000
    await lab.swap(pool, True, sqrt_price_limit=limit)
    await lab.mine()
    assert lab.pool_state(pool).sqrt_price == limit == (await lab.slot0(pool))[0]

    # Down and up again in one transaction: a whole crossing that the block's ends don't show.
    down = SwapLeg(pool, True, sqrt_price_limit=limit * 99 // 100)
    await lab.swaps([down, SwapLeg(pool, False, sqrt_price_limit=limit)])
    block = await lab.mine()
    assert len([log for log in block.receipts[0]["logs"] if log["address"] == pool.address]) == 2
    assert lab.pool_state(pool).sqrt_price == limit


async def test_staking_moves_the_nft_and_keeps_its_depositor(lab: Lab) -> None:
    pool, owner = lab.pools[0], lab.owners[2]
    tick = pool.align(lab.pool_state(pool).tick)
    token_id = await lab.mint_now(owner, pool, tick - 600, tick + 600)
    await lab.stake(token_id)
    await lab.mine()
    assert lab.nft(token_id).owner == lab.deployment.staker
    deposit = await lab.call(lab.contracts.staker, lab.deployment.staker, "deposits", token_id)
    assert deposit[:2] == (owner, 1)
    await lab.unstake(token_id)
    await lab.mine()
    assert lab.nft(token_id).owner == owner
    await lab.deposit(token_id)
    await lab.mine()
    deposit = await lab.call(lab.contracts.staker, lab.deployment.staker, "deposits", token_id)
    assert deposit[:2] == (owner, 0)


async def test_a_failed_transaction_names_the_action_and_the_reason(lab: Lab) -> None:
    pool = lab.pools[0]
    await lab.swap(pool, True, 10**40)
    with pytest.raises(TxFailed, match=r"swap WETH/USDC 0\.05%: STF"):
        await lab.mine()
    await lab.swap(pool, True, 10**40)
    block = await lab.mine(allow_failures=True)
    assert [one.reason for one in block.failed] == ["STF"]


async def test_a_reorg_is_read_anew(lab: Lab) -> None:
    pool, owner = lab.pools[0], lab.owners[0]
    tick = pool.align(lab.pool_state(pool).tick)
    kept = await lab.mint_now(owner, pool, tick - 600, tick + 600)
    lost = await lab.mint_now(owner, pool, tick - 500, tick + 500)
    price = lab.pool_state(pool)
    await lab.swap(pool, True, 10**18)
    await lab.mine()
    assert lab.pool_state(pool) != price
    await lab.node.rpc("anvil_reorg", [2, []])
    await lab.catch_up()
    assert (kept in lab.book.nfts, lost in lab.book.nfts) == (True, False)
    assert lab.pool_state(pool) == price


async def test_the_folded_book_equals_the_contracts(lab: Lab) -> None:
    pool, (a, b, *_) = lab.pools[1], lab.owners
    tick = pool.align(lab.pool_state(pool).tick)
    first = await lab.mint_now(a, pool, tick - 600, tick + 600)
    second = await lab.mint_now(b, pool, tick - 600, tick + 600)
    await lab.stake(first)
    await lab.decrease(second, lab.nft(second).liquidity // 3)
    await lab.swap(pool, False, pool.token1.raw_of_usd(10_000))
    block = await lab.mine()
    read = await read_book(lab, lab.contracts, lab.deployment, lab.pools, block.hash)
    assert read.nfts == lab.book.nfts
    assert read.pools == lab.book.pools
    assert read.depositors == lab.book.depositors


async def test_odd_tokens_are_odd(lab: Lab) -> None:
    odd = await lab.create_odd_tokens()

    async def raw(kind: str, selector: str) -> str:
        answer: str = await lab.node.rpc("eth_call", [{"to": odd[kind].address, "data": selector}, "latest"])
        return answer

    symbol, decimals = "0x95d89b41", "0x313ce567"
    assert bytes.fromhex((await raw("bytes32", symbol))[2:]) == b"MKR".ljust(32, b"\0")
    assert int(await raw("huge-decimals", decimals), 16) == 2**256 - 1
    assert await lab.call(lab.contracts.token, odd["hostile"].address, "symbol") == (HOSTILE_SYMBOL,)
    for kind, selector in (("no-symbol", symbol), ("no-decimals", decimals)):
        with pytest.raises(RpcError, match="no metadata"):
            await raw(kind, selector)

    pool = await lab.create_pool(odd["fee"], odd["bytes32"], 3000)
    empty = await lab.create_pool(odd["hostile"], odd["no-decimals"], 500, sqrt_price=0)
    await lab.mine()
    assert (await lab.slot0(empty))[0] == 0
    token_id = await lab.mint_now(lab.owners[0], pool, -600, 600)
    await lab.set_transfer_fee(odd["fee"], 100)
    await lab.mine()
    before = await lab.call(lab.contracts.token, odd["fee"].address, "balanceOf", lab.owners[0])
    principal = await lab.principal(token_id)
    await lab.burn(token_id)
    await lab.mine()
    after = await lab.call(lab.contracts.token, odd["fee"].address, "balanceOf", lab.owners[0])
    expected = principal[0 if pool.token0 == odd["fee"] else 1]
    assert after[0] - before[0] == expected - expected // 100
