"""Whatever happens in whatever order, clients' copies equal what a freshly loaded book shows at the same head.

Blocks, gaps, forks, restarts, unread blocks, wishes that come and go, cold loads spread over many small rounds
and histories that arrive late, in any order that Hypothesis finds.
"""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rtserver.domain.ids import TokenId
from rtserver.protocols.channels import Channel, HeadChannel, OwnerChannel, PoolChannel, PositionChannel

from .follower import CHAIN, KIND, BlockModel, ChainModel, Follower
from .model import ODD, OWNERS, STRANGER, USD, WETH, Contracts, pool_at

POOLS = (pool_at(WETH, USD, 500), pool_at(WETH, USD, 3000), pool_at(ODD, WETH, 3000))
SEEDS = st.integers(0, 2**32 - 1)


def _open_market(contracts: Contracts) -> None:
    contracts.create_pool(WETH, USD, 500, 0)
    contracts.create_pool(ODD, WETH, 3000, 60)
    for owner, pool in ((OWNERS[0], POOLS[0]), (OWNERS[1], POOLS[2]), (OWNERS[2], POOLS[0])):
        contracts.mint(owner, contracts.pools[pool], -120, 120, 10**15)


def _act(random: Random, contracts: Contracts) -> None:
    """Do one thing that people do."""
    if not contracts.pools:
        _open_market(contracts)
    pool = random.choice(list(contracts.pools.values()))
    lower, upper = sorted(random.sample(range(-240, 241, 60), 2))
    fees0, fees1 = random.choice([(0, 1 << 100), (3 << 101, 0), (0, 0)])
    token_id = random.choice(list(contracts.nfts) or [0])
    kind = random.choice(
        ["swap", "swap", "swap", "flash", "mint", "mint", "increase", "decrease", "collect", "transfer", "burn",
         "direct", "create"]
    )  # fmt: skip
    if kind == "swap":
        on_boundary = random.random() < 0.3
        tick = random.randrange(-240, 241, 60) - 1 if on_boundary else random.randint(-250, 250)
        contracts.swap(pool, tick, on_boundary=on_boundary, fees0=fees0, fees1=fees1)
    elif kind == "flash":
        contracts.flash(pool, fees0, fees1)
    elif kind == "mint":
        contracts.mint(random.choice([*OWNERS, STRANGER]), pool, lower, upper, random.choice([10**12, 10**15]))
    elif kind == "direct":
        contracts.add_directly(pool, lower, upper, random.choice([10**13, -(10**14)]))
    elif kind == "create":
        contracts.create_pool(WETH, USD, 3000, 30)
    elif token_id:
        if kind == "increase":
            contracts.increase(token_id, 10**14)
        elif kind == "decrease":
            contracts.decrease(token_id, random.choice([10**11, 10**14, 10**18]))
        elif kind == "collect":
            contracts.collect(token_id, random.choice([10**3, 1 << 100]), random.choice([10**9, 1 << 100]))
        elif kind == "transfer":
            contracts.transfer(token_id, random.choice([*OWNERS, STRANGER]))
        else:
            contracts.burn(token_id)


CHANNELS: tuple[Channel, ...] = (
    *(OwnerChannel(CHAIN, owner) for owner in OWNERS),
    *(PositionChannel(CHAIN, KIND, TokenId(token_id)) for token_id in range(1, 8)),
    *(PoolChannel(CHAIN, pool) for pool in POOLS),
    HeadChannel(CHAIN),
)


class BookSequences(RuleBasedStateMachine):
    """A follower through anything."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = ChainModel()
        self.follower = Follower(self.chain.mine(self.chain.genesis, _open_market))

    def _mine(self, parent: BlockModel, seed: int, count: int) -> list[BlockModel]:
        random = Random(seed)
        blocks = []

        def act(contracts: Contracts) -> None:
            for _ in range(random.choice([0, 1, 1, 2, 5])):
                _act(random, contracts)

        for _ in range(count):
            parent = self.chain.mine(parent, act)
            blocks.append(parent)
        return blocks

    def _read(self, budget: int, *, is_read: bool) -> None:
        if is_read:
            self.follower.settle(budget)

    @initialize(channel=st.sampled_from(CHANNELS))
    def first_wish(self, channel: Channel) -> None:
        self.follower.want(channel)

    @rule(seed=SEEDS, count=st.sampled_from([1, 1, 1, 3]), budget=st.sampled_from([2, 400]), is_read=st.booleans())
    def blocks(self, seed: int, count: int, budget: int, is_read: bool) -> None:
        self.follower.take(self._mine(self.follower.head, seed, count))
        self._read(budget, is_read=is_read)

    @precondition(lambda self: self.follower.head.header.number > self.follower.floor)
    @rule(
        seed=SEEDS,
        depth=st.integers(1, 5),
        count=st.integers(1, 3),
        budget=st.sampled_from([2, 400]),
        is_read=st.booleans(),
    )
    def reorg(self, seed: int, depth: int, count: int, budget: int, is_read: bool) -> None:
        ancestor = self.follower.head
        for _ in range(depth):
            if ancestor.parent is not None and ancestor.header.number > self.follower.floor:
                ancestor = ancestor.parent
        self.follower.reorg(self._mine(ancestor, seed, count))
        self._read(budget, is_read=is_read)

    @rule(seed=SEEDS)
    def restart(self, seed: int) -> None:
        self.follower.restart(self._mine(self.follower.head, seed, 2)[-1])
        self.follower.settle()

    @rule(channel=st.sampled_from(CHANNELS))
    def want(self, channel: Channel) -> None:
        self.follower.want(channel)

    @rule(channel=st.sampled_from(CHANNELS))
    def unwant(self, channel: Channel) -> None:
        self.follower.unwant(channel)

    @rule(budget=st.sampled_from([1, 5, 400]))
    def load_some(self, budget: int) -> None:
        self.follower.read(budget)
        if self.follower.core.is_settled():
            self.follower.publish()

    @rule()
    def ask_history(self) -> None:
        self.follower.ask_history()

    @rule()
    def answer_history(self) -> None:
        self.follower.answer_history()

    @rule()
    def compare(self) -> None:
        self.follower.load()
        other = self.follower.other()
        assert self.follower.states == {name: other.states.get(name, {}) for name in self.follower.wanted}
        assert self.follower.lives() == other.lives()
        assert set(self.follower.states) == set(self.follower.wanted)

    @invariant()
    def copies_are_of_wanted_channels(self) -> None:
        assert set(self.follower.states) <= set(self.follower.wanted)

    def teardown(self) -> None:
        self.compare()


BookSequences.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    database=None,
    derandomize=True,
)
test_book_sequences = BookSequences.TestCase
