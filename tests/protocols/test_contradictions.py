"""A node that answers for a block from another state: its answers are refused, and nothing of them is taken."""

from __future__ import annotations

import pytest

from rtserver.domain.errors import Contradiction
from rtserver.protocols.channels import OwnerChannel

from .follower import CHAIN, BlockModel, ChainModel, Follower
from .model import OWNERS, USD, WETH, Contracts, pool_at

POOL = pool_at(WETH, USD, 500)
MINE = OwnerChannel(CHAIN, OWNERS[0])


def begin() -> tuple[ChainModel, Follower]:
    """Return a chain with one position, followed."""
    chain = ChainModel()

    def act(contracts: Contracts) -> None:
        contracts.create_pool(WETH, USD, 500, 0)
        contracts.mint(OWNERS[0], contracts.pools[POOL], -60, 60, 10**15)

    follower = Follower(chain.mine(chain.genesis, act))
    follower.want(MINE)
    follower.load()
    return chain, follower


def swap(chain: ChainModel, parent: BlockModel, tick: int) -> BlockModel:
    return chain.mine(
        parent, lambda contracts: contracts.swap(contracts.pools[POOL], tick, on_boundary=False, fees0=5, fees1=7)
    )


def read_from(follower: Follower, other: BlockModel) -> None:
    """Do one round of reads that the node answers from another block's state."""
    plan = follower.core.plan(10_000)
    follower.core.absorb(plan, [other.state.answer(to, data) for to, data in plan.calls])


def test_answers_of_the_next_block_are_refused_and_asked_for_again() -> None:
    chain, follower = begin()
    one = swap(chain, follower.head, 30)
    two = swap(chain, one, -30)
    follower.take([one])
    for _ in range(3):
        with pytest.raises(Contradiction, match="its last swap left"):
            read_from(follower, two)
        assert not follower.core.is_settled()
    follower.settle()
    assert follower.states == follower.fresh()


def test_a_block_that_was_never_seen_leaves_nothing_behind() -> None:
    chain, follower = begin()
    ground = swap(chain, follower.head, 30)
    unseen = swap(chain, ground, -30)
    follower.take([ground])
    with pytest.raises(Contradiction):
        read_from(follower, unseen)
    follower.take([chain.mine(ground, lambda contracts: None)])
    follower.settle()
    assert follower.states == follower.fresh()


def test_the_last_swap_of_several_blocks_counts() -> None:
    chain, follower = begin()
    one = swap(chain, follower.head, 30)
    two = swap(chain, one, -30)
    follower.take([one, two])
    with pytest.raises(Contradiction):
        read_from(follower, one)
    follower.settle()
    assert follower.states == follower.fresh()


def test_a_swap_that_left_the_chain_says_nothing() -> None:
    chain, follower = begin()
    ground = follower.head
    follower.take([swap(chain, ground, 30)])
    follower.reorg([chain.mine(ground, lambda contracts: None)])
    follower.settle()
    assert follower.states == follower.fresh()


def test_a_node_that_sticks_to_it_is_believed_in_the_end() -> None:
    chain, follower = begin()
    one = swap(chain, follower.head, 30)
    two = swap(chain, one, -30)
    follower.take([one])
    refused = 0
    while not follower.core.is_settled():
        try:
            read_from(follower, two)
        except Contradiction:
            refused += 1
    assert refused == 8
    follower.publish()
    assert follower.position(1)["tick"] == -30
    # The count begins again: the next block has as many tries.
    follower.take([swap(chain, two, 10)])
    with pytest.raises(Contradiction):
        read_from(follower, two)
    follower.settle()
    assert follower.states == follower.fresh()
