"""Sequences with a name: each is a way in which a live book once differed, or could differ, from a fresh one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rtserver.domain.ids import TokenId
from rtserver.protocols.addresses import checksum
from rtserver.protocols.channels import OwnerChannel, PoolChannel, PositionChannel

from .follower import CHAIN, KIND, BlockModel, ChainModel, Follower
from .model import OWNERS, STRANGER, USD, WETH, Contracts, PoolModel, pool_at

A, B, C = (OwnerChannel(CHAIN, owner) for owner in OWNERS)
ONE = PositionChannel(CHAIN, KIND, TokenId(1))
POOL = pool_at(WETH, USD, 500)
Act = Callable[[Contracts, PoolModel], object]


class Story:
    """A chain with one pool and one position of A in it, and a follower that watches what a test wants."""

    def __init__(self) -> None:
        self.chain = ChainModel()

        def begin(contracts: Contracts) -> None:
            contracts.create_pool(WETH, USD, 500, 0)
            contracts.mint(OWNERS[0], contracts.pools[POOL], -60, 60, 10**15)
            contracts.mint(OWNERS[2], contracts.pools[POOL], -600, 600, 10**15)

        self.follower = Follower(self.chain.mine(self.chain.genesis, begin))

    @property
    def head(self) -> BlockModel:
        return self.follower.head

    def mine(self, parent: BlockModel, *acts: Act) -> BlockModel:
        """Mine a block with these actions on the pool."""

        def act(contracts: Contracts) -> None:
            for one in acts:
                one(contracts, contracts.pools[POOL])

        return self.chain.mine(parent, act)

    def block(self, *acts: Act) -> BlockModel:
        """Mine, take and settle a block."""
        self.follower.take([self.mine(self.head, *acts)])
        self.follower.settle()
        return self.head

    def fork(self, ancestor: BlockModel | None, *acts: Act) -> None:
        """Replace everything above a block by one block."""
        assert ancestor is not None
        self.follower.reorg([self.mine(ancestor, *acts)])
        self.follower.settle()

    def check(self) -> None:
        """Compare clients' copies with a fresh load."""
        self.follower.load()
        assert self.follower.states == self.follower.fresh()


@pytest.fixture
def story() -> Story:
    """Return a story at its beginning."""
    return Story()


def swap(tick: int, *, on_boundary: bool = False, fees: int = 1 << 120) -> Act:
    return lambda contracts, pool: contracts.swap(pool, tick, on_boundary=on_boundary, fees0=fees, fees1=fees)


def mint(owner_index: int, lower: int = -60, upper: int = 60) -> Act:
    return lambda contracts, pool: contracts.mint(OWNERS[owner_index], pool, lower, upper, 10**15)


def transfer(token_id: int, owner_index: int) -> Act:
    return lambda contracts, pool: contracts.transfer(token_id, OWNERS[owner_index])


def decrease(token_id: int, liquidity: int) -> Act:
    return lambda contracts, pool: contracts.decrease(token_id, liquidity)


def collect(token_id: int, most: int = 1 << 127) -> Act:
    return lambda contracts, pool: contracts.collect(token_id, most, most)


def test_swaps_that_cross_ticks_in_one_block_and_come_back(story: Story) -> None:
    story.follower.want(A)
    story.check()
    story.block(swap(100), swap(-100), swap(0))
    story.check()
    story.block(swap(59, on_boundary=True), swap(-61, on_boundary=True))
    story.check()


def test_a_position_lives_and_dies(story: Story) -> None:
    for channel in (A, B, ONE, PoolChannel(CHAIN, POOL)):
        story.follower.want(channel)
    story.check()
    for acts in (
        (mint(0, -120, 0), swap(30)),
        (decrease(1, 10**14), swap(-30)),
        (collect(1, 1000),),
        (transfer(1, 1), swap(5)),
        (lambda contracts, pool: contracts.increase(1, 10**12),),
        (lambda contracts, pool: contracts.burn(1),),
    ):
        story.block(*acts)
        story.check()
    assert story.follower.states[ONE.name] == {}
    assert story.follower.states[B.name] == {}


def test_fees_are_what_is_collectable_less_withdrawn_principal(story: Story) -> None:
    story.follower.want(ONE)
    story.check()
    story.block(swap(10))
    story.block(decrease(1, 10**15))
    view = story.follower.position(1)
    assert int(str(view["collectable0"])) > int(str(view["fees0"])) > 0
    known = view
    # A book that starts now learns the same from the history.
    other = Follower(story.head)
    other.want(ONE)
    while other.read():
        pass
    other.publish()
    assert other.position(1)["fees0"] is None
    assert not other.states, "the channel waits for the history"
    other.load()
    assert other.position(1) == known
    # And says that it doesn't know where the history can't be read.
    third = Follower(story.head)
    third.want(ONE)
    while third.read():
        pass
    third.ask_history()
    third.answer_history(readable=False)
    third.publish()
    assert third.states[ONE.name]["1"]["fees0"] is None
    assert third.states[ONE.name]["1"]["collectable0"] == known["collectable0"]


def test_the_principal_tally_is_undone_with_its_block(story: Story) -> None:
    story.follower.want(A)
    story.check()
    story.block(swap(10))
    before = story.block(decrease(1, 10**13))
    story.block(decrease(1, 10**14), collect(1, 500))
    story.fork(before, swap(20))
    story.check()
    assert int(story.follower.states[A.name][f"{KIND}:1"]["fees0"]) >= 0  # type: ignore[arg-type]


def test_a_history_that_comes_late_counts_nothing_twice(story: Story) -> None:
    story.block(swap(10), decrease(1, 10**13))
    story.follower.want(ONE)
    while story.follower.read():
        pass
    assert story.follower.ask_history()
    story.block(decrease(1, 10**13))
    story.follower.answer_history()
    story.check()


def test_ticks_crossed_by_a_branch_that_ended_where_another_began(story: Story) -> None:
    """Two forks: the second one's swap starts at the ancestor's tick, not at the first one's last tick."""
    story.follower.want(A)
    story.check()
    ancestor = story.block(swap(0))
    story.block(swap(100))
    story.fork(ancestor, swap(200))
    story.fork(ancestor)
    story.check()


def test_an_id_that_is_another_position_on_the_other_branch(story: Story) -> None:
    minted = PositionChannel(CHAIN, KIND, TokenId(3))
    for channel in (A, B, minted):
        story.follower.want(channel)
    story.check()
    ancestor = story.head
    story.block(mint(0, -120, 120))
    assert story.follower.states[minted.name]["3"]["tickUpper"] == 120
    story.fork(ancestor, mint(1, -180, 0))
    assert story.follower.states[minted.name]["3"]["tickUpper"] == 0
    assert f"{KIND}:3" not in story.follower.states[A.name]
    assert f"{KIND}:3" in story.follower.states[B.name]
    story.check()


def test_a_position_that_moves_while_both_owners_are_being_read(story: Story) -> None:
    story.follower.want(A)
    story.follower.want(B)
    story.follower.read(3)
    story.block(transfer(1, 1))
    story.check()
    assert set(story.follower.states) == {A.name, B.name}
    assert story.follower.states[A.name] == {}


def test_enumeration_that_a_transfer_interrupts_begins_again(story: Story) -> None:
    for _ in range(30):
        story.block(mint(0))
    story.follower.want(A)
    story.follower.read(5)
    story.block(transfer(1, 2), transfer(4, 1), transfer(2, 0))
    story.follower.read(5)
    story.check()
    assert len(story.follower.states[A.name]) == 30


def test_nobody_gives_up_what_another_waits_for(story: Story) -> None:
    story.follower.want(A)
    story.follower.want(ONE)
    story.follower.read(20)
    story.follower.unwant(ONE)
    story.check()
    assert f"{KIND}:1" in story.follower.states[A.name]
    story.follower.want(ONE)
    story.follower.unwant(A)
    story.check()
    assert story.follower.states[ONE.name]["1"]["owner"] == checksum(OWNERS[0])


def test_what_was_first_read_at_a_block_that_is_dropped(story: Story) -> None:
    ancestor = story.head
    story.block(swap(100), transfer(1, 1))
    story.follower.want(A)
    story.follower.want(ONE)
    story.follower.want(PoolChannel(CHAIN, POOL))
    story.follower.load()
    assert story.follower.states[A.name] == {}
    story.fork(ancestor, swap(-100))
    story.check()
    assert f"{KIND}:1" in story.follower.states[A.name]


def test_what_was_first_read_above_two_forks(story: Story) -> None:
    """Read at a block that goes, read again at another that goes, and before that nobody looked at it."""
    ancestor = story.head
    minted = story.block(mint(0, -120, 120))
    story.block()
    for token_id in (1, 3):
        story.follower.want(PositionChannel(CHAIN, KIND, TokenId(token_id)))
    story.follower.load()
    story.fork(minted, swap(100))
    story.check()
    story.fork(ancestor)
    story.check()
    assert story.follower.states[f"position:{CHAIN}:{KIND}:3"] == {}


def test_a_pool_created_in_a_gap_and_undone_in_parts(story: Story) -> None:
    story.follower.want(A)
    story.check()
    other = pool_at(WETH, USD, 3000)

    def create(contracts: Contracts, pool: PoolModel) -> None:
        contracts.create_pool(WETH, USD, 3000, 0)

    def deepen(contracts: Contracts, pool: PoolModel) -> None:
        contracts.add_directly(contracts.pools[other], -60, 60, 10**20)

    first = story.mine(story.head, create)
    second = story.mine(first, deepen)
    story.follower.take([first, second])
    story.follower.settle()
    story.check()
    story.fork(first)
    story.check()


def test_a_pool_that_a_fork_takes_away(story: Story) -> None:
    ancestor = story.head
    other = PoolChannel(CHAIN, pool_at(WETH, USD, 3000))
    story.block(lambda contracts, pool: contracts.create_pool(WETH, USD, 3000, 0))
    story.follower.want(A)
    story.follower.want(other)
    story.check()
    assert len(story.follower.states[other.name]) == 1
    story.fork(ancestor)
    assert story.follower.states[other.name] == {}
    story.check()


def test_a_restart_reads_everything_once_more(story: Story) -> None:
    for channel in (A, B, ONE, PoolChannel(CHAIN, POOL)):
        story.follower.want(channel)
    story.check()
    unseen = story.mine(story.head, swap(300), transfer(1, 1), mint(0), decrease(1, 10**13))
    story.follower.restart(story.mine(unseen, swap(-50)))
    story.check()


def test_channels_of_what_is_not_there(story: Story) -> None:
    nothing = PositionChannel(CHAIN, KIND, TokenId(99))
    no_pool = PoolChannel(CHAIN, STRANGER)
    story.follower.want(nothing)
    story.follower.want(no_pool)
    story.follower.want(OwnerChannel(CHAIN, STRANGER))
    story.check()
    assert story.follower.states[nothing.name] == {}
    assert story.follower.refused[no_pool.name].code == "bad_channel"


def test_a_mint_is_in_its_own_block_and_costs_two_rounds(story: Story) -> None:
    story.follower.want(A)
    story.check()
    story.follower.take([story.mine(story.head, mint(0, -240, 240))])
    rounds = 0
    while not story.follower.core.is_settled():
        story.follower.read(400)
        rounds += 1
    story.follower.publish()
    assert rounds <= 2
    assert f"{KIND}:3" in story.follower.states[A.name]


def test_a_quiet_block_reads_nothing(story: Story) -> None:
    story.follower.want(A)
    story.check()
    story.follower.take([story.mine(story.head)])
    assert story.follower.core.is_settled()
    assert story.follower.read() == 0


def test_what_nobody_watches_is_forgotten(story: Story) -> None:
    for channel in (A, B, C, ONE, PoolChannel(CHAIN, POOL)):
        story.follower.want(channel)
    story.check()
    for channel in (A, ONE, PoolChannel(CHAIN, POOL), B, C):
        story.follower.unwant(channel)
    assert {kind: count for kind, count in story.follower.book.tracked.items() if count} == {}
    assert story.follower.read() == 0
