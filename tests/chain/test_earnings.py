"""What positions are said to have earned, against what the contracts really paid, to the unit."""

from __future__ import annotations

import random

import pytest

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market, MarketConfig
from rtserver.domain.ids import Address, TokenId
from rtserver.protocols.base import Sample

from .paid import credits_of, payments, receipts_of
from .staking import Staker
from .test_reorg import reorg
from .world import World, open_world

DAY_S = 86_400


def samples_of(world: World) -> dict[int, Sample]:
    assert world.book is not None
    return {sample.token_id: sample for sample in world.book.samples(map(TokenId, world.lab.book.nfts))}


async def assert_earned(world: World, staker: Staker) -> tuple[int, int]:
    """Compare every position's fees, life and rewards with what was paid; return how many earned each."""
    assert world.book is not None
    await world.remembered()
    await world.assert_exact()
    blocks = await receipts_of(world.lab)
    paid = payments(world.lab, blocks)
    samples = samples_of(world)
    fees = 0
    views = {int(view["tokenId"]): view for view in world.positions()}
    assert samples.keys() == views.keys()
    for token_id, sample in samples.items():
        view, one = views[token_id], paid[token_id]
        tokens = [view[side]["address"].lower() for side in ("token0", "token1")]
        due = int(view["collectable0"]), int(view["collectable1"])
        assert (sample.earned0, sample.earned1) == (one.fees(tokens[0]) + due[0], one.fees(tokens[1]) + due[1]), (
            token_id
        )
        life = world.book.life(TokenId(token_id))
        assert life is not None
        assert [life.collected0, life.collected1] == [one.collected[token] for token in tokens]
        assert [life.withdrawn0, life.withdrawn1] == [one.withdrawn[token] for token in tokens]
        assert [life.deposited0, life.deposited1] == [one.deposited[token] for token in tokens]
        fees += bool(sample.earned0 or sample.earned1)
    credited, unclear = await credits_of(world, staker, blocks)
    rewards = 0
    for token_id, sample in samples.items():
        assert sample.rewards is not None, token_id
        due_by_token: dict[str, int] = {}
        for place in (views[token_id]["rewards"] or {"places": []})["places"]:
            token = place["token"]["address"].lower()
            due_by_token[token] = due_by_token.get(token, 0) + int(place["amount"] or 0)
        if token_id in credited or not unclear:
            assert sum(sample.rewards.values()) == credited.get(token_id, 0) + sum(due_by_token.values()), token_id
            rewards += credited.get(token_id, 0) > 0
    return fees, rewards


async def assert_claimed(world: World, staker: Staker, said: dict[int, Sample]) -> None:
    """Have everybody claim everything; all that was said to be credited has to arrive, and no unit more."""
    lab = world.lab
    credited, unclear = await credits_of(world, staker, await receipts_of(lab))
    token = staker.incentives[0].reward_token
    assert {incentive.reward_token for incentive in staker.incentives} == {token}
    # Nobody tells of positions that were burned since.
    assert not unclear or credited.keys() <= said.keys()
    gone = sum(amount for token_id, amount in credited.items() if token_id not in said)
    owners = [*lab.owners, lab.deployment.stranger]
    before = [await balance(lab, token, owner) for owner in owners]
    for owner in owners:
        await staker.claim(owner, token)
    await lab.mine(allow_failures=True)
    after = [await balance(lab, token, owner) for owner in owners]
    total = sum((sample.rewards or {}).get(Address(token.lower()), 0) for sample in said.values())
    assert total + gone == sum(after) - sum(before)
    assert total > 0


async def balance(lab: Lab, token: str, owner: str) -> int:
    data = "0x70a08231" + owner[2:].rjust(64, "0")
    return int(await lab.node.rpc("eth_call", [{"to": token, "data": data}, "latest"]), 16)


async def start(lab: Lab, seed: int) -> tuple[Market, Staker]:
    """Return a market of which a block is a quarter of an hour, and the staker that it uses."""
    await lab.mine()
    config = MarketConfig(seconds_per_block=900, changes_per_block=(2, 5), max_nfts=60)
    market = Market(lab, seed=seed, config=config)
    await market.steps(20)
    return market, Staker(lab)


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_day_of_trades_stakes_and_withdrawals_is_what_was_paid(lab: Lab, seed: int) -> None:
    market, staker = await start(lab, seed)
    async with open_world(lab, staking=True) as world:
        await world.open_owners((*lab.owners, lab.deployment.staker))
        began = lab.head.timestamp
        while lab.head.timestamp < began + DAY_S:
            await market.step()
            await world.settled()
        fees, rewards = await assert_earned(world, staker)
        assert fees > 10
        assert rewards > 0
        # At the end everybody takes everything: what was said to be earned is what arrives.
        staked = {int(view["tokenId"]) for view in world.positions() if view["isStaked"]}
        assert staked
        for token_id in sorted(staked):
            await lab.unstake(token_id)
            await lab.mine(timestamp=lab.head.timestamp + 60)
            await world.settled()
        said = samples_of(world)
        free = [token_id for token_id in sorted(lab.book.nfts) if lab.book.nfts[token_id].owner in lab.owners]
        for token_id in free:
            await lab.collect(token_id)
        await lab.mine(allow_failures=True)
        await world.settled()
        await assert_earned(world, staker)
        paid = payments(lab, await receipts_of(lab))
        for token_id in free:
            pool = next(pool for pool in lab.pools if pool.address == lab.book.nfts[token_id].pool)
            tokens = pool.token0.address.lower(), pool.token1.address.lower()
            assert (said[token_id].earned0, said[token_id].earned1) == tuple(map(paid[token_id].fees, tokens))
        await assert_claimed(world, staker, said)


@pytest.mark.parametrize("seed", [3, 4])
async def test_reorgs_leave_nothing_of_what_was_earned_in_blocks_that_left(lab: Lab, seed: int) -> None:
    rng = random.Random(seed)
    market, staker = await start(lab, seed)
    async with open_world(lab, staking=True) as world:
        await world.open_owners((*lab.owners, lab.deployment.staker))
        for _ in range(10):
            for _ in range(rng.randint(1, 8)):
                await market.step()
                await world.settled()
            await reorg(world, rng.randint(1, 7))
            await world.rewarded()
            await assert_earned(world, staker)


async def test_who_unstakes_together_is_credited_apart(lab: Lab) -> None:
    """Of one incentive in one block, seen or found out later; also by who had stakes in it twice."""
    await lab.mine()
    staker = Staker(lab)
    incentive = staker.incentives[0]
    pool = next(pool for pool in lab.pools if pool.address == incentive.pool)
    tick = pool.align(lab.pool_state(pool).tick)
    owners = lab.owners[:3]
    ids = []
    for index, owner in enumerate(owners):
        width = pool.align(1_000 * (index + 1))
        ids.append(await lab.mint_now(owner, pool, tick - width, tick + width))
    for owner, token_id in zip(owners, ids, strict=True):
        await staker.deposit(owner, token_id, incentive)
    await lab.mine(timestamp=lab.head.timestamp + 10)
    async with open_world(lab, staking=True) as world:
        await world.open_owners(owners[:2])
        await lab.swap(pool, True, pool.token0.raw_of_usd(300_000))
        await lab.mine(timestamp=lab.head.timestamp + 500)
        await world.settled()
        await staker.unstake(owners[0], ids[0], incentive)
        await staker.unstake(owners[1], ids[1], incentive)
        await lab.swap(pool, False, pool.token1.raw_of_usd(200_000))
        await staker.unstake(owners[2], ids[2], incentive)
        await lab.mine(timestamp=lab.head.timestamp + 500)
        await world.settled()
        await world.open_owners(owners[2:])
        await assert_credited(world, staker, dict(zip(ids, owners, strict=True)))
        # A second stake of one of them, unstaked alone: by what the block itself tells.
        await staker.stake(owners[0], ids[0], incentive)
        await lab.mine(timestamp=lab.head.timestamp + 50)
        await world.settled()
        await staker.unstake(owners[0], ids[0], incentive)
        await lab.mine(timestamp=lab.head.timestamp + 700)
        await world.settled()
        await assert_credited(world, staker, dict(zip(ids, owners, strict=True)))
    async with open_world(lab, staking=True) as later:
        await later.open_owners(owners)
        await assert_credited(later, staker, dict(zip(ids, owners, strict=True)))
    for owner in owners:
        async with open_world(lab, staking=True) as alone:
            # Nobody asked for the others, who shared the incentive's sums in that block.
            await alone.open_owners([owner])
            await assert_credited(alone, staker, dict(zip(ids, owners, strict=True)))


async def assert_credited(world: World, staker: Staker, owners: dict[int, str]) -> None:
    """Each owner has one position: what the staker owes it is what that position was credited."""
    await world.remembered()
    token = staker.incentives[0].reward_token
    for token_id, sample in samples_of(world).items():
        if token_id in owners:
            answer = await world.batch([staker.call("rewards", token, owners[token_id], block=world.keeper.head)])
            assert sample.rewards == {token.lower(): int(answer[0], 16)}, token_id
            assert int(answer[0], 16) > 0


async def test_a_window_is_what_a_collect_pays_over_it(lab: Lab) -> None:
    await lab.mine()
    owner = lab.owners[0]
    pool = lab.pool("WETH", "USDC", 500)
    tick = pool.align(lab.pool_state(pool).tick)
    token_id = TokenId(await lab.mint_now(owner, pool, tick - 3_000, tick + 3_000))
    other = await lab.mint_now(lab.owners[1], pool, tick - 3_000, tick + 3_000)
    async with open_world(lab) as world:
        await world.open_owners([owner])
        assert world.book is not None
        began = lab.head.timestamp

        async def block(at: int) -> None:
            await lab.mine(timestamp=at)
            await world.settled()

        for minute in range(1, 121):
            await lab.swap(pool, minute % 2 == 0, (pool.token0 if minute % 2 == 0 else pool.token1).raw_of_usd(9_000))
            if minute % 7 == 0:
                await lab.collect(other)  # each poke of a shared range rounds
            if minute == 60:
                # What was earned until now is taken out, so the next collect pays the last hour alone.
                await lab.collect(token_id)
            if minute == 80:
                await lab.increase(owner, token_id, pool.token0.raw_of_usd(500), pool.token1.raw_of_usd(500))
            if minute == 100:
                await lab.decrease(token_id, lab.book.nfts[token_id].liquidity // 3)
            await block(began + 60 * minute)
        earnings = world.book.earnings(token_id)
        assert earnings is not None
        hour = next(window for window in earnings.windows if window.length_s == 3_600)
        assert hour.covered_s == 3_600
        before = await paid_to(lab, token_id)
        await lab.collect(token_id)
        await block(began + 60 * 120 + 1)
        after = await paid_to(lab, token_id)
        life = world.book.life(token_id)
        assert life is not None
        assert [event.kind for event in life.events] == ["deposit", "collect", "deposit", "withdrawal", "collect"]
        assert (life.events[-1].fees0, life.events[-1].fees1) == (hour.fees0, hour.fees1)
        withdrawn = life.withdrawn0, life.withdrawn1
        assert (after[0] - before[0], after[1] - before[1]) == (hour.fees0 + withdrawn[0], hour.fees1 + withdrawn[1])
        assert hour.fees0 > 0
        assert hour.fees1 > 0
        day = next(window for window in earnings.windows if window.length_s == DAY_S)
        assert day.covered_s == 7_200


async def paid_to(lab: Lab, token_id: int) -> tuple[int, int]:
    """Return what a position's collects have paid so far."""
    paid = payments(lab, await receipts_of(lab))[token_id]
    pool = next(pool for pool in lab.pools if pool.address == lab.book.nfts[token_id].pool)
    return paid.collected[Address(pool.token0.address.lower())], paid.collected[Address(pool.token1.address.lower())]
