"""Lives of positions in the book: the same whether events were folded block by block, undone, or read later."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from rtserver.domain.ids import TokenId
from rtserver.protocols.channels import OwnerChannel, PositionChannel

from .follower import CHAIN, KIND, BlockModel, ChainModel, Follower
from .model import OWNERS, Contracts
from .test_book_random_sequences import POOLS, _act, _open_market


def _followed() -> tuple[ChainModel, Follower]:
    chain = ChainModel()
    follower = Follower(chain.mine(chain.genesis, _open_market))
    for owner in OWNERS:
        follower.want(OwnerChannel(CHAIN, owner))
    follower.load()
    return chain, follower


@pytest.mark.parametrize("seed", range(12))
def test_a_book_that_saw_everything_knows_what_a_fresh_one_reads(seed: int) -> None:
    random = Random(seed)
    chain, follower = _followed()
    events = 0

    def blocks(parent: BlockModel, count: int) -> list[BlockModel]:
        made = []

        def act(contracts: Contracts) -> None:
            for _ in range(random.choice((0, 1, 3, 5))):
                _act(random, contracts)

        for _ in range(count):
            parent = chain.mine(parent, act)
            made.append(parent)
        return made

    for _ in range(120):
        if random.random() < 0.3 and follower.head.header.number > 8:
            ancestor = follower.head
            for _ in range(random.randint(1, 5)):
                assert ancestor.parent is not None
                ancestor = ancestor.parent
            follower.reorg(blocks(ancestor, random.randint(1, 3)))
        else:
            follower.take(blocks(follower.head, random.choice((1, 1, 2))))
        follower.settle()
        # Sometimes an answer waits until the chain has moved on, or turned.
        if random.random() < 0.5:
            follower.ask_history()
        if random.random() < 0.5:
            follower.answer_history()
        if random.random() < 0.3:
            follower.load()
            lives = follower.lives()
            assert lives == follower.other().lives()
            assert all(life is not None for _, life in lives.values())
            events += sum(len(life.events) for _, life in lives.values() if life is not None)
    assert events > 50


def test_fees_over_life_are_what_was_paid_and_is_due_less_what_was_withdrawn() -> None:
    chain, follower = _followed()
    token_id = TokenId(1)

    def sample() -> tuple[int | None, int | None]:
        (found,) = follower.book.samples([token_id])
        return found.earned0, found.earned1

    def block(act: Callable[[Contracts], None]) -> None:
        follower.take([chain.mine(follower.head, act)])
        follower.settle()

    def swap(contracts: Contracts) -> None:
        contracts.swap(contracts.pools[POOLS[0]], 5, on_boundary=False, fees0=1 << 100, fees1=3 << 100)

    assert sample() == (0, 0)
    block(swap)
    fees = sample()
    assert fees[0] and fees[1]
    block(lambda c: c.decrease(token_id, 10**14))
    assert sample() == fees
    block(lambda c: c.collect(token_id, 10**3, 10**3))
    assert sample() == fees
    block(lambda c: c.increase(token_id, 10**14))
    block(lambda c: c.collect(token_id, 1 << 100, 1 << 100))
    assert sample() == fees
    life = follower.book.life(token_id)
    assert life is not None
    assert [event.kind for event in life.events] == ["deposit", "withdrawal", "collect", "deposit", "collect"]
    # Withdrawn principal is paid first, so the fees come last.
    assert (life.events[2].fees0, life.events[2].fees1) == (0, 0)
    assert (life.events[4].fees0, life.events[4].fees1) == fees
    assert (life.collected0 - life.withdrawn0, life.collected1 - life.withdrawn1) == fees


def test_a_past_that_cannot_be_read_is_unknown_and_what_happens_is_counted_all_the_same() -> None:
    chain = ChainModel()
    follower = Follower(chain.mine(chain.genesis, _open_market))
    follower.want(PositionChannel(CHAIN, KIND, TokenId(1)))
    while follower.read() or follower.ask_history():
        follower.answer_history(readable=False)
    follower.publish()
    (sample,) = follower.book.samples([TokenId(1)])
    assert (sample.earned0, follower.book.life(TokenId(1))) == (None, None)
    assert (sample.fees0, sample.fees1) == (0, 0)

    def swap(contracts: Contracts) -> None:
        contracts.swap(next(iter(contracts.pools.values())), 5, on_boundary=False, fees0=1 << 100, fees1=0)

    follower.take([chain.mine(follower.head, swap)])
    follower.settle()
    earnings = follower.book.earnings(TokenId(1))
    assert earnings is not None
    (window, *_) = earnings.windows
    assert (window.covered_s, window.fees0) == (1, earnings.sample.fees0)
    assert window.fees0 > 0
