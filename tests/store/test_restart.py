"""Killed and started again on a real chain: nothing is enumerated twice, nothing that happened meanwhile is missed."""

from pathlib import Path

import pytest
from chain.world import owner_channel, pool_channel, position_channel

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market

from .conftest import Place
from .lives import Life, open_life


async def traded(lab: Lab, seed: int) -> Market:
    market = Market(lab, seed=seed)
    await market.steps(30)
    return market


async def first_life(lab: Lab, path: Path | str) -> list[str]:
    """Live once, with all owners open; return the channels."""
    async with open_life(lab, path) as life:
        await life.open_owners()
        await life.open(pool_channel(lab.pools[0].address))
        await life.kept()
        assert life.asked["enumerate"]
        return list(life.keeper.states)


def assert_not_rediscovered(life: Life) -> None:
    assert life.vault.loaded is not None
    assert not life.asked["enumerate"]
    assert not life.asked["balance"]


async def test_nothing_happened(lab: Lab, place: Place) -> None:
    await traded(lab, 1)
    names = await first_life(lab, place.url)
    async with open_life(lab, place.url) as life:
        await life.loaded(names)
        assert_not_rediscovered(life)
        assert not life.asked["history"]
        await life.assert_whole()


@pytest.mark.parametrize("seed", [2, 3])
async def test_a_market_went_on(lab: Lab, tmp_path: Path, seed: int) -> None:
    """Swaps, mints, burns, transfers, stakes, collects while nobody looked; then life goes on, block by block."""
    market = await traded(lab, seed)
    names = await first_life(lab, tmp_path / "store")
    for away in (1, 20, 70):
        await market.steps(away)
        async with open_life(lab, tmp_path / "store") as life:
            await life.loaded(names)
            assert_not_rediscovered(life)
            await life.assert_whole()
            await market.steps(5)
            await life.settled()
            await life.assert_whole()
            await life.kept()


async def test_away_for_longer_than_any_window(lab: Lab, tmp_path: Path) -> None:
    market = await traded(lab, 4)
    names = await first_life(lab, tmp_path / "store")
    await market.steps(5)
    await lab.mine(400)
    await market.steps(5)
    async with open_life(lab, tmp_path / "store") as life:
        await life.loaded(names)
        assert_not_rediscovered(life)
        await life.assert_whole()


async def test_a_reorganisation_meanwhile(lab: Lab, tmp_path: Path) -> None:
    """Minted, burned, moved and collected in blocks that the first life saw and that left the chain since."""
    market = await traded(lab, 5)
    first, second = lab.owners[:2]
    pool = lab.pool("WETH", "USDC", 500)
    lower, upper = pool.align(lab.pool_state(pool).tick - 2000), pool.align(lab.pool_state(pool).tick + 2000)
    burned = await lab.mint_now(first, pool, lower, upper)
    moved = await lab.mint_now(first, pool, lower, upper)
    owed = await lab.mint_now(second, pool, lower, upper)
    async with open_life(lab, tmp_path / "store") as life:
        await life.open_owners()
        await life.settled()
        minted = await lab.mint_now(second, pool, lower, upper)
        await lab.burn(burned)
        await lab.transfer(moved, second)
        await lab.decrease(owed)
        await lab.mine()
        await life.kept()
        names = list(life.keeper.states)
        assert f"uniswap-v3:{minted}" in life.owner(second)
        assert f"uniswap-v3:{burned}" not in life.owner(first)
    # Not deeper than the block at which the owners were first looked at: below it nothing is known of them.
    await lab.node.rpc("anvil_reorg", [3, []])
    await lab.catch_up()
    await market.steps(3)
    async with open_life(lab, tmp_path / "store") as life:
        await life.loaded(names)
        assert_not_rediscovered(life)
        assert f"uniswap-v3:{burned}" in life.owner(first)
        assert f"uniswap-v3:{moved}" in life.owner(first)
        await life.assert_whole()


async def test_a_reorganisation_right_after(lab: Lab, tmp_path: Path) -> None:
    """The head that the second life began at leaves the chain, and then blocks that only the first one saw."""
    market = await traded(lab, 6)
    names = await first_life(lab, tmp_path / "store")
    await market.steps(6)
    async with open_life(lab, tmp_path / "store") as life:
        await life.loaded(names)
        for depth in (2, 4, 25):
            # The last one takes away the block at which the first life looked at the owners first.
            if depth < 25:
                assert_not_rediscovered(life)
            await lab.node.rpc("anvil_reorg", [depth, []])
            await lab.catch_up()
            await life.settled()
            await life.assert_whole()
            await market.steps(3)
            await life.settled()
        await life.kept()
    async with open_life(lab, tmp_path / "store") as life:
        await life.loaded(names)
        await life.assert_whole()


async def test_swaps_alone_leave_the_chain_right_after(lab: Lab, tmp_path: Path) -> None:
    """Blocks of which only pools tell something: what was first read after them is undone with them."""
    await traded(lab, 11)
    names = await first_life(lab, tmp_path / "store")
    pool = lab.pool("WETH", "USDC", 500)
    for index in range(4):
        paid = pool.token0 if index % 2 else pool.token1
        await lab.swap(pool, bool(index % 2), paid.raw_of_usd(20_000 * (1 + index)))
        await lab.mine()
    async with open_life(lab, tmp_path / "store") as life:
        await life.loaded(names)
        await life.assert_exact()
        await lab.node.rpc("anvil_reorg", [2, []])
        await lab.catch_up()
        await life.settled()
        await life.assert_whole()
        assert_not_rediscovered(life)


async def test_the_very_block_that_was_kept_leaves_the_chain(lab: Lab, tmp_path: Path) -> None:
    """What it touched is known from the first life; the second one has read nothing before it."""
    await traded(lab, 12)
    first, second = lab.owners[:2]
    pool = lab.pool("WETH", "USDC", 500)
    lower, upper = pool.align(lab.pool_state(pool).tick - 2000), pool.align(lab.pool_state(pool).tick + 2000)
    burned = await lab.mint_now(first, pool, lower, upper)
    names = await first_life(lab, tmp_path / "store")
    async with open_life(lab, tmp_path / "store") as life:
        await life.loaded(names)
        minted = await lab.mint_now(second, pool, lower, upper)
        await lab.burn(burned)
        await lab.mine()
        await life.settled()
        await life.vault.until(life.keeper.head)
    async with open_life(lab, tmp_path / "store") as life:
        await life.loaded(names)
        assert f"uniswap-v3:{minted}" in life.owner(second)
        await lab.node.rpc("anvil_reorg", [2, []])
        await lab.catch_up()
        await life.settled()
        assert f"uniswap-v3:{burned}" in life.owner(first)
        assert f"uniswap-v3:{minted}" not in life.owner(second)
        await life.assert_whole()
        assert_not_rediscovered(life)


async def test_the_chain_went_back(lab: Lab, tmp_path: Path) -> None:
    """A node that is behind what was kept: its head is where we are; what it then has is what counts."""
    market = await traded(lab, 7)
    names = await first_life(lab, tmp_path / "store")
    await lab.node.rpc("anvil_rollback", [5])
    await lab.catch_up()
    async with open_life(lab, tmp_path / "store") as life:
        await life.loaded(names)
        await life.assert_whole()
        await market.steps(8)
        await life.settled()
        await life.assert_whole()


async def test_deeper_than_what_was_kept(lab: Lab, tmp_path: Path) -> None:
    """Nothing of the kept branch is left: wishes are, and everything else is found out anew."""
    market = await traded(lab, 8)
    await lab.mine(60)
    names = await first_life(lab, tmp_path / "store")
    await lab.node.rpc("anvil_rollback", [70])
    await lab.catch_up()
    await lab.mine(3)
    async with open_life(lab, tmp_path / "store") as life:
        await life.loaded(names)
        assert life.asked["enumerate"]
        await life.assert_whole()
        await market.steps(3)
        await life.settled()
        await life.assert_whole()


async def test_killed_in_the_middle_of_loading(lab: Lab, tmp_path: Path) -> None:
    """Owners whose positions were not all read are found out again; the others are not."""
    await traded(lab, 9)
    path = tmp_path / "store"
    async with open_life(lab, path) as life:
        await life.open(owner_channel(lab.owners[0]), position_channel(1))
        await life.kept()
        for owner in lab.owners[1:]:
            life.runner.want(owner_channel(owner))
        # Killed before any of these was read.
    async with open_life(lab, path) as life:
        await life.loaded([owner_channel(lab.owners[0]).name])
        assert_not_rediscovered(life)
        await life.open_owners()
        await life.assert_whole()


async def test_life_after_life(lab: Lab, place: Place) -> None:
    """Many short lives with a reorganisation between some of them; each one right."""
    market = await traded(lab, 10)
    names = await first_life(lab, place.url)
    for turn in range(6):
        await market.steps(1 + turn % 3)
        if turn % 2:
            await lab.node.rpc("anvil_reorg", [1 + turn, []])
            await lab.catch_up()
        async with open_life(lab, place.url) as life:
            await life.loaded(names)
            await life.assert_whole()
            if turn != 2:
                await life.kept()
