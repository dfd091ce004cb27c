"""Staked positions on the real v3-staker: whose they are and what they earn, exact at every block."""

import random

import pytest

from rtserver.demo.actions import Tx
from rtserver.demo.deployment import Incentive
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market, MarketConfig
from rtserver.domain.chain import Log
from rtserver.domain.errors import PermanentError

from .counting import CountingProxy
from .staking import Crowd, Staker, assert_staking, without_as_of
from .test_reorg import reorg
from .world import open_world, pool_channel, position_channel, rewards_channel


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_block_of_a_market_with_stakers_is_exact(lab: Lab, seed: int) -> None:
    market = Market(lab, seed=seed, config=MarketConfig(seconds_per_block=7))
    staker = Staker(lab)
    crowd = Crowd(staker, seed)
    await lab.mine()  # the chain's clock, from which the market counts on
    for _ in range(60):
        await crowd.act()
        await market.step()
    compared = positive = 0
    async with open_world(lab, staking=True) as world:
        await world.open_owners((*lab.owners, lab.deployment.staker))
        await world.open(*map(rewards_channel, lab.owners))
        await world.assert_exact()
        for _ in range(60):
            await crowd.act()
            await market.step()
            await world.settled()
            await world.assert_exact()
            more, earning = await assert_staking(world, staker)
            compared += more
            positive += earning
        fresh = await world.fresh()
        assert without_as_of(fresh.states) == without_as_of(world.keeper.states)
    assert positive > 300, (compared, positive)


@pytest.mark.parametrize("seed", [3, 4])
async def test_reorgs_of_any_depth_undo_stakes(lab: Lab, seed: int) -> None:
    rng = random.Random(seed)
    market = Market(lab, seed=seed, config=MarketConfig(seconds_per_block=7))
    staker = Staker(lab)
    crowd = Crowd(staker, seed)
    await lab.mine()  # the chain's clock, from which the market counts on
    for _ in range(60):
        await crowd.act()
        await market.step()
    async with open_world(lab, staking=True) as world:
        await world.open_owners(lab.owners[:10])
        await world.open(*map(rewards_channel, lab.owners[5:12]))
        for round_ in range(12):
            await lab.mine()
            for _ in range(rng.randint(1, 8)):
                await crowd.act()
                await market.step()
            await world.settled()
            # Some join in blocks that then leave the chain.
            await world.open_owners(lab.owners[10 + round_ : 11 + round_])
            await reorg(world, rng.randint(1, 9))
            await world.rewarded()
            await world.assert_exact()
            await assert_staking(world, staker)
            fresh = await world.fresh()
            assert without_as_of(fresh.states) == without_as_of(world.keeper.states)


async def _pool_with_time(lab: Lab) -> tuple[Staker, Incentive]:
    """Return the staker, and the first incentive of the lab's first pool, once it has begun."""
    await lab.mine()
    staker = Staker(lab)
    return staker, staker.incentives[0]


async def _mint(lab: Lab, owner: str, incentive: Incentive, *, width: int = 2_000, above: int = 0) -> int:
    """Mint a position around the price, or `above` it, in the incentive's pool."""
    pool = next(pool for pool in lab.pools if pool.address == incentive.pool)
    tick = pool.align(lab.pool_state(pool).tick + above)
    return await lab.mint_now(owner, pool, tick - pool.align(width), tick + pool.align(width))


async def _one_staked(lab: Lab) -> tuple[Staker, Incentive, int]:
    """Return the staker, its first incentive, and a position of the first owner that is staked there."""
    staker, incentive = await _pool_with_time(lab)
    token_id = await _mint(lab, lab.owners[0], incentive)
    await staker.deposit(lab.owners[0], token_id, incentive)
    await lab.mine()
    return staker, incentive, token_id


async def test_a_deposit_belongs_to_its_depositor_staked_or_not(lab: Lab) -> None:
    first, second, third = lab.owners[:3]
    staker, incentive = await _pool_with_time(lab)
    token_id = await _mint(lab, first, incentive)
    key = f"uniswap-v3:{token_id}"
    async with open_world(lab, staking=True) as world:
        await world.open_owners((first, second, third, staker.at))
        await world.open(position_channel(token_id))

        async def step(owner: str, *, staked: bool) -> None:
            await lab.mine()
            await world.settled()
            assert [name for name in (first, second, third, staker.at) if key in world.owner(name)] == [owner]
            view = world.position(token_id)
            assert (view["owner"].lower(), view["isStaked"]) == (owner, staked)
            assert (view["rewards"] is not None) is staked
            await assert_staking(world, staker)

        await staker.deposit(first, token_id)
        await step(first, staked=False)
        await staker.stake(first, token_id, incentive)
        await step(first, staked=True)
        await staker.give(first, token_id, second)
        await step(second, staked=True)
        await staker.unstake(second, token_id, incentive)
        await step(second, staked=False)
        await staker.withdraw(second, token_id, third)
        await step(third, staked=False)
        # Sent there without a word: held for nobody, so it is the contract's own.
        await lab.transfer(token_id, staker.at)
        await step(staker.at, staked=False)


async def test_stake_and_unstake_in_one_block_and_all_at_once(lab: Lab) -> None:
    owner = lab.owners[0]
    staker, incentive = await _pool_with_time(lab)
    start = lab.head.timestamp + 5
    reward = lab.deployment.tokens["LINK"].address
    other = await staker.create(reward, incentive.pool, start=start, end=start + 1_000, amount=10**20)
    token_id = await _mint(lab, owner, incentive)
    await lab.mine(timestamp=start + 1)
    async with open_world(lab, staking=True) as world:
        await world.open_owners([owner])
        await world.open(rewards_channel(owner))
        await staker.deposit(owner, token_id, incentive, other)
        await staker.unstake(owner, token_id, other)
        await staker.stake(owner, token_id, other)
        await lab.mine(timestamp=start + 10)
        await world.settled()
        (view,) = world.owner(owner).values()
        assert len(view["rewards"]["places"]) == 2  # type: ignore[index,call-overload,arg-type]
        await staker.unstake(owner, token_id, other)
        await staker.unstake(owner, token_id, incentive)
        await staker.withdraw(owner, token_id)
        await staker.claim(owner, reward, 7)
        await lab.mine(timestamp=start + 30)
        await world.settled()
        (view,) = world.owner(owner).values()
        assert (view["isStaked"], view["rewards"]) == (False, None)
        assert len(world.keeper.states[rewards_channel(owner).name]) == 2
        await assert_staking(world, staker)


async def test_claims_move_with_what_is_claimed_for_whomever(lab: Lab) -> None:
    owner, friend = lab.owners[:2]
    staker, incentive, token_id = await _one_staked(lab)
    async with open_world(lab, staking=True) as world:
        await world.open(rewards_channel(owner), rewards_channel(friend))
        claims = world.keeper.states[rewards_channel(owner).name]
        assert claims == {}
        await staker.unstake(owner, token_id, incentive)
        await lab.mine(timestamp=lab.head.timestamp + 100)
        await world.settled()
        (claim,) = claims.values()
        whole = int(str(claim["amount"]))
        assert whole > 10
        await staker.claim(owner, incentive.reward_token, whole - 10, friend)
        await lab.mine()
        await world.settled()
        assert [view["amount"] for view in claims.values()] == ["10"]
        await staker.claim(owner, incentive.reward_token)
        await lab.mine()
        await world.settled()
        assert claims == {}
        await assert_staking(world, staker)


async def test_rewards_at_the_end_of_an_incentive_and_after_it(lab: Lab) -> None:
    """After its end the same reward is shared by more seconds, anyone may unstake, and then it can be ended."""
    owner, other = lab.owners[:2]
    staker, first = await _pool_with_time(lab)
    start = lab.head.timestamp + 10
    incentive = await staker.create(first.reward_token, first.pool, start=start, end=start + 100, amount=10**18)
    # The same key again adds to the reward.
    await staker.create(first.reward_token, first.pool, start=start, end=start + 100, amount=3)
    mine, far = await _mint(lab, owner, incentive), await _mint(lab, other, incentive, above=6_000)
    await lab.mine(timestamp=start)
    await staker.deposit(owner, mine, incentive)
    await staker.deposit(other, far, incentive)
    await lab.mine(timestamp=start + 1)
    async with open_world(lab, staking=True) as world:
        await world.open_owners((owner, other))
        amounts = []
        for at in (2, 50, 99, 100, 101, 150, 1_000):
            await lab.mine(timestamp=start + at)
            await world.settled()
            await assert_staking(world, staker)
            (view,) = world.owner(owner).values()
            amounts.append(int(view["rewards"]["places"][0]["amount"]))  # type: ignore[index,call-overload,arg-type]
            (view,) = world.owner(other).values()
            assert view["rewards"]["places"][0]["amount"] == "0"  # type: ignore[index,call-overload]
        assert sorted(amounts[:4]) == amounts[:4]
        for token_id in (mine, far):
            await staker.unstake(lab.deployment.stranger, token_id, incentive)
        await staker.end(incentive)
        await lab.mine()
        await world.settled()
        await assert_staking(world, staker)


async def test_an_observation_at_every_index(lab: Lab) -> None:
    """A pool keeps one observation until someone pays for more; then each block that moves the tick writes the next."""
    owner = lab.owners[0]
    staker, incentive, _ = await _one_staked(lab)
    pool = next(pool for pool in lab.pools if pool.address == incentive.pool)
    async with (
        CountingProxy(lab.node.http_url).running() as proxy,
        open_world(lab, http=proxy.url, staking=True) as world,
    ):
        await world.open_owners([owner])
        await world.remembered()
        grow = Tx("grow", owner, pool.address, lab.contracts.pool.call("increaseObservationCardinalityNext", 3))
        for index in range(9):
            if index == 2:
                await lab.send(grow)
            amount = (pool.token0 if index % 2 else pool.token1).raw_of_usd(400_000)
            proxy.reset()
            await lab.swap(pool, index % 2 == 1, amount)
            await lab.mine(timestamp=lab.head.timestamp + 13)
            await world.settled()
            assert sum(proxy.methods.values()) == 2
            await assert_staking(world, staker)
            await lab.mine(timestamp=lab.head.timestamp + 5)
            await world.settled()
            assert sum(proxy.methods.values()) == 2
            await assert_staking(world, staker)


async def test_rewards_cost_no_calls_and_come_at_their_pace(lab: Lab) -> None:
    staker, incentive, token_id = await _one_staked(lab)
    async with (
        CountingProxy(lab.node.http_url).running() as proxy,
        open_world(lab, http=proxy.url, staking=True, rewards_every_s=10) as world,
    ):
        await world.open(position_channel(token_id))
        await world.remembered()
        proxy.reset()
        shown = []
        start = lab.head.timestamp
        for second in range(1, 31):
            await lab.mine(timestamp=start + second)
            await world.settled()
            rewards = world.position(token_id)["rewards"]
            shown.append((rewards["asOf"], rewards["places"][0]["amount"]))
        assert proxy.requests == 0
        assert len(set(shown)) in (3, 4)
        # A restarted incentive's sum changes with somebody else's unstaking: told with that block.
        other = await _mint(lab, lab.owners[1], incentive)
        await staker.deposit(lab.owners[1], other, incentive)
        await lab.mine(timestamp=lab.head.timestamp + 1)
        # anvil answers for its newest block with the next one's state while it mines that: read first, then mine.
        await world.settled()
        await staker.unstake(lab.owners[1], other, incentive)
        await lab.mine(timestamp=lab.head.timestamp + 2)
        await world.settled()
        assert world.position(token_id)["rewards"]["asOf"] == lab.head.timestamp
        await assert_staking(world, staker)


async def test_calls_a_block_with_many_stakers(lab: Lab) -> None:
    market = Market(lab, seed=21, config=MarketConfig(seconds_per_block=7))
    staker = Staker(lab)
    crowd = Crowd(staker, 21)
    await lab.mine()
    for _ in range(60):
        await crowd.act()
        await market.step()
    for owner in lab.owners[:10]:
        await staker.deposit(owner, await _mint(lab, owner, staker.incentives[0]), staker.incentives[0])
    await lab.mine()
    async with (
        CountingProxy(lab.node.http_url).running() as proxy,
        open_world(lab, http=proxy.url, staking=True) as world,
    ):
        await world.open_owners(lab.owners)
        await world.open(*map(rewards_channel, lab.owners))
        # A first position in a pool that nobody watched takes a second round: that is not what is counted here.
        await world.open(*(pool_channel(pool.address) for pool in lab.pools))
        assert sum(view["isStaked"] for view in world.positions()) > 5
        await world.remembered()
        counts = []
        for _ in range(40):
            proxy.reset()
            await crowd.act()
            await market.step()
            await world.settled()
            counts.append(sum(proxy.methods.values()))
            await assert_staking(world, staker)
        assert max(counts) <= 2


async def test_deeper_than_the_journal_asks_the_past_again(lab: Lab) -> None:
    market = Market(lab, seed=9, config=MarketConfig(seconds_per_block=7))
    staker = Staker(lab)
    crowd = Crowd(staker, 9)
    await lab.mine()
    for _ in range(40):
        await crowd.act()
        await market.step()
    async with open_world(lab, staking=True) as world:
        await world.open_owners()
        for _ in range(70):
            await crowd.act()
            await market.step()
        await world.settled()
        await lab.node.rpc("anvil_reorg", [68, []])
        await lab.catch_up()
        await world.settled()
        await world.rewarded()
        await assert_staking(world, staker)


async def test_a_past_that_can_not_be_read_is_asked_again(lab: Lab) -> None:
    """Without past events an owner's own positions are served, and the deposited ones once they can be found."""
    owner = lab.owners[0]
    staker, incentive = await _pool_with_time(lab)
    held, deposited = await _mint(lab, owner, incentive), await _mint(lab, owner, incentive)
    await staker.deposit(owner, deposited, incentive)
    await lab.mine()
    async with open_world(lab, staking=True) as world:
        real = world.reader.history

        async def refuse(*_: object) -> list[Log]:
            raise PermanentError("no past here")

        world.reader.history = refuse  # type: ignore[method-assign,assignment]
        await world.open_owners([owner])
        assert set(world.owner(owner)) == {f"uniswap-v3:{held}"}
        world.reader.history = real  # type: ignore[method-assign]
        await lab.mine(timestamp=lab.head.timestamp + 61)
        await world.keeper.until(lambda: len(world.owner(owner)) == 2)
        await world.rewarded()
        await assert_staking(world, staker)
