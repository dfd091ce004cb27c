"""Smallest cases of what reviews found in the book: each was wrong once."""

from __future__ import annotations

from rtserver.protocols.channels import OwnerChannel, PoolChannel

from .follower import CHAIN, KIND, BlockModel, ChainModel, Follower
from .model import OWNERS, STRANGER, USD, WETH, Contracts, pool_at

POOL = pool_at(WETH, USD, 500)
FIRST, SECOND = (OwnerChannel(CHAIN, owner) for owner in OWNERS[:2])


def begin(positions: int) -> tuple[ChainModel, BlockModel]:
    """Return a chain whose first owner has some positions in one pool, and its head."""
    chain = ChainModel()

    def act(contracts: Contracts) -> None:
        contracts.create_pool(WETH, USD, 500, 0)
        for _ in range(positions):
            contracts.mint(OWNERS[0], contracts.pools[POOL], -60, 60, 10**15)

    return chain, chain.mine(chain.genesis, act)


def test_half_an_enumeration_is_undone_with_its_block() -> None:
    chain, ground = begin(40)
    orphan = chain.mine(ground, lambda contracts: contracts.transfer(3, STRANGER))
    follower = Follower(orphan)
    follower.want(FIRST)
    follower.read(20)
    follower.reorg([chain.mine(ground, lambda contracts: None)])
    while follower.read(20) or follower.ask_history():
        follower.answer_history()
    follower.publish()
    assert follower.states == follower.fresh()
    assert len(follower.states[FIRST.name]) == 40


def test_a_mint_that_was_counted_and_orphaned_does_not_hold_a_channel_back() -> None:
    chain, ground = begin(40)

    def one_more(contracts: Contracts) -> None:
        contracts.mint(OWNERS[0], contracts.pools[POOL], -60, 60, 10**15)

    orphan = chain.mine(ground, one_more)
    follower = Follower(orphan)
    follower.want(FIRST)
    follower.read(20)
    follower.reorg([chain.mine(ground, lambda contracts: None)])
    for _ in range(50):
        follower.read(20)
    follower.publish()
    assert not follower.core.is_opening
    assert follower.states == follower.fresh()


def test_a_pool_that_only_priced_is_not_refused_while_its_growth_is_read() -> None:
    chain, ground = begin(1)
    other = pool_at(WETH, USD, 3000)

    def act(contracts: Contracts) -> None:
        contracts.create_pool(WETH, USD, 3000, 0)
        contracts.mint(STRANGER, contracts.pools[other], -60, 60, 10**15)

    follower = Follower(chain.mine(ground, act))
    follower.want(FIRST)
    follower.load()
    follower.want(PoolChannel(CHAIN, other))
    follower.take([chain.mine(follower.head, lambda contracts: None)])
    follower.settle()
    assert follower.refused == {}
    follower.load()
    assert follower.states == follower.fresh()


def test_a_position_that_moves_before_it_was_shown_is_in_that_blocks_step() -> None:
    chain, ground = begin(2)
    follower = Follower(ground)
    follower.want(SECOND)
    follower.load()
    follower.want(FIRST)
    follower.read(20)
    follower.read(3)
    follower.take([chain.mine(follower.head, lambda contracts: contracts.transfer(1, OWNERS[1]))])
    while not follower.core.is_settled():
        follower.read(1)
    follower.publish()
    assert list(follower.states[SECOND.name]) == [f"{KIND}:1"]


def test_a_pool_given_up_while_it_is_identified_is_not_tracked() -> None:
    _, ground = begin(1)
    follower = Follower(ground)
    channels = PoolChannel(CHAIN, POOL), PoolChannel(CHAIN, STRANGER)
    for channel in channels:
        follower.want(channel)
    plan = follower.core.plan(100)
    for channel in channels:
        follower.unwant(channel)
    follower.core.absorb(plan, [follower.head.state.answer(target, data) for target, data in plan.calls])
    follower.load()
    assert not any(follower.book.tracked.values())
