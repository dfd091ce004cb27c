"""The staker's state machine by itself: along random branches it knows what one that starts at the head does."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from rtserver.domain.chain import Log
from rtserver.domain.errors import RetryableError
from rtserver.domain.ids import Address, BlockHash, Tick, TokenId
from rtserver.protocols.base import Plan
from rtserver.protocols.staking import StakedRange
from rtserver.protocols.uniswap_v3.staker import V3Staker
from rtserver.protocols.uniswap_v3.staker import events as ev

STAKER = Address("0x" + "5a" * 20)
OWNERS = [Address(f"0x{0xA0 + index:040x}") for index in range(4)]
IDS = [TokenId(index) for index in range(1, 7)]
NOBODY = Address("0x" + "0" * 40)
NOW = 10_000
PLACE = StakedRange(STAKER, Tick(0), Tick(1), 1 << 130)


def _key(index: int) -> tuple[str, str, int, int, str]:
    return f"0x{0xE0 + index % 2:040x}", f"0x{0xF0:040x}", 100 + index, 20_000 + index, OWNERS[0]


def _id(index: int) -> bytes:
    return bytes(keccak(encode(["(address,address,uint256,uint256,address)"], [_key(index)])))


NAMES = [_id(index) for index in range(3)]


@dataclass
class Contract:
    """The staker's storage, and the logs of the block being made."""

    owner: dict[int, Address] = field(default_factory=dict)
    stakes: dict[tuple[int, bytes], tuple[int, int]] = field(default_factory=dict)
    sums: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    claims: dict[tuple[str, str], int] = field(default_factory=dict)
    logs: list[tuple[tuple[str, ...], str]] = field(default_factory=list)

    def count(self, token_id: int) -> int:
        return sum(1 for at, _ in self.stakes if at == token_id)

    def _log(self, topic: str, *indexed: int | str, data: bytes = b"") -> None:
        words = tuple(f"0x{int(value, 16) if isinstance(value, str) else value:064x}" for value in indexed)
        self.logs.append(((topic, *words), data.hex()))

    def act(self, rng: random.Random) -> None:
        token_id, index = rng.choice(IDS), rng.randrange(3)
        name, (reward_token, pool, start, end, refundee) = NAMES[index], _key(index)
        unclaimed, seconds = self.sums.get(name, (0, 0))
        owner, staked = self.owner.get(token_id), (token_id, name) in self.stakes
        match rng.choice(("create", "deposit", "give", "withdraw", "stake", "stake", "unstake", "unstake", "claim")):
            case "create":
                self.sums[name] = unclaimed + 10**6, seconds
                data = encode(["uint256", "uint256", "address", "uint256"], [start, end, refundee, 10**6])
                self._log(ev.INCENTIVE_CREATED, reward_token, pool, data=data)
            case "deposit" if owner is None:
                self.owner[token_id] = rng.choice(OWNERS)
                self._log(ev.DEPOSIT_TRANSFERRED, token_id, NOBODY, self.owner[token_id])
            case "give" if owner is not None:
                self.owner[token_id] = rng.choice(OWNERS)
                self._log(ev.DEPOSIT_TRANSFERRED, token_id, owner, self.owner[token_id])
            case "withdraw" if owner is not None and not self.count(token_id):
                del self.owner[token_id]
                self._log(ev.DEPOSIT_TRANSFERRED, token_id, owner, NOBODY)
            case "stake" if owner is not None and not staked and unclaimed:
                self.stakes[token_id, name] = rng.randint(1, 1000), rng.randint(1, 10**6)
                self._log(ev.TOKEN_STAKED, token_id, "0x" + name.hex(), data=encode(["uint128"], [1]))
            case "unstake" if owner is not None and staked:
                del self.stakes[token_id, name]
                paid = rng.randint(0, unclaimed)
                self.sums[name] = unclaimed - paid, seconds + 7
                self.claims[reward_token, owner] = self.claims.get((reward_token, owner), 0) + paid
                self._log(ev.TOKEN_UNSTAKED, token_id, "0x" + name.hex())
            case "claim":
                whose = rng.choice(OWNERS)
                amount = rng.randint(0, self.claims.get((reward_token, whose), 0))
                self.claims[reward_token, whose] = self.claims.get((reward_token, whose), 0) - amount
                self._log(ev.REWARD_CLAIMED, rng.choice(OWNERS), data=encode(["uint256"], [amount]))

    def answer(self, data: bytes) -> bytes:
        selector, body = data[:4].hex(), data[4:]
        if selector == "c36c1ea5":
            words = self.stakes.get((int.from_bytes(body[:32], "big"), body[32:64]), (0, 0))
        elif selector == "60777795":
            words = self.sums.get(body, (0, 0))
        else:
            words = self.claims.get(("0x" + body[12:32].hex(), "0x" + body[44:64].hex()), 0), 0
        return b"".join(value.to_bytes(32, "big") for value in words)


@dataclass(eq=False)
class Block:
    hash: BlockHash
    parent: Block | None
    state: Contract
    logs: list[Log]

    @property
    def branch(self) -> list[Block]:
        return [*(self.parent.branch if self.parent else []), self]


class World:
    """Blocks on every branch, and a staker that follows one of them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.made = 0
        self.head = self.mine(None)
        self.staker = V3Staker(STAKER)
        self.staker.open(self.head.hash)
        # No block below this one can be told apart: whoever links blocks restarts instead of going there.
        self.floor = self.head
        self.tracked: set[TokenId] = set()
        self.owners: set[Address] = set()

    def mine(self, parent: Block | None) -> Block:
        self.made += 1
        state = copy.deepcopy(parent.state) if parent else Contract()
        state.logs = []
        for _ in range(self.rng.randint(0, 8)):
            state.act(self.rng)
        block_hash = BlockHash(f"0x{self.made:064x}")
        logs = [
            Log(
                address=STAKER, topics=topics, data=data, block_hash=block_hash,
                block_number=self.made, index=index, tx_hash="0x",
            )
            for index, (topics, data) in enumerate(state.logs)
        ]  # fmt: skip
        return Block(block_hash, parent, state, logs)

    def extend(self, count: int) -> None:
        for _ in range(count):
            self.head = self.mine(self.head)
            self.staker.open(self.head.hash)
            for log in self.head.logs:
                self.staker.fold(log)
        self.read(self.staker)

    def fork(self, depth: int) -> None:
        branch = self.head.branch
        dropped = branch[branch.index(self.floor) + 1 :][-depth:]
        if dropped:
            self.staker.unwind([block.hash for block in reversed(dropped)])
            assert dropped[0].parent is not None
            self.head = dropped[0].parent
        self.extend(self.rng.randint(1, 3))

    def read(self, staker: V3Staker) -> None:
        """Read what is stale, as a block does; positions are read again with it."""
        for token_id in sorted(self.tracked):
            staker.track(token_id, self.head.state.count(token_id), is_born=False)
        while not staker.is_settled():
            plan = Plan()
            staker.plan(plan)
            self._answer(staker, plan)

    def load(self, staker: V3Staker) -> None:
        """Read everything, the past, too."""
        while True:
            self.read(staker)
            plan = Plan()
            staker.plan_loads(plan, 100)
            self._answer(staker, plan)
            query = staker.history_query(is_late=False)
            if query is None:
                if not plan.calls:
                    return
                continue
            wanted = query.topics
            staker.absorb_history(query, [log for b in self.head.branch for log in b.logs if _fits(log, wanted)])

    def _answer(self, staker: V3Staker, plan: Plan) -> None:
        for (_, cell), (_, data) in zip(plan.keys, plan.calls, strict=True):
            staker.absorb(cell, self.head.state.answer(data))

    def fresh(self) -> V3Staker:
        staker = V3Staker(STAKER)
        staker.open(self.head.hash)
        for owner in sorted(self.owners):
            staker.want_owner(owner)
        self.load(staker)
        return staker

    def assert_same(self) -> None:
        fresh = self.fresh()
        for token_id in self.tracked:
            if self.head.state.count(token_id):
                mine = self.staker.rewards(token_id, PLACE, NOW)
                assert mine is not None
                assert mine == fresh.rewards(token_id, PLACE, NOW)
                assert len(mine) == self.head.state.count(token_id)
        for owner in self.owners:
            claims = {token: amount for (token, whose), amount in self.head.state.claims.items() if whose == owner}
            assert self.staker.claims(owner) == {token: amount for token, amount in claims.items() if amount}


def _fits(log: Log, topics: Sequence[Sequence[str]]) -> bool:
    return all(not wanted or log.topics[place] in wanted for place, wanted in enumerate(topics))


_MOVES = ("extend", "fork", "track", "untrack", "own", "disown", "load", "all")
_WEIGHTS = (4, 6, 6, 1, 4, 1, 6, 1)


@pytest.mark.parametrize("seed", range(150))
def test_random_branches(seed: int) -> None:
    world = World(seed)
    rng = world.rng
    world.extend(15)
    for _ in range(25):
        match rng.choices(_MOVES, _WEIGHTS)[0]:
            case "extend":
                world.extend(rng.randint(1, 3))
            case "fork":
                world.fork(rng.randint(1, 4))
            case "track":
                world.tracked.add(rng.choice(IDS))
            case "untrack" if world.tracked:
                token_id = rng.choice(sorted(world.tracked))
                world.tracked.discard(token_id)
                world.staker.untrack(token_id)
            case "own":
                owner = rng.choice(OWNERS)
                world.owners.add(owner)
                world.staker.want_owner(owner)
            case "disown" if world.owners:
                owner = rng.choice(sorted(world.owners))
                world.owners.discard(owner)
                world.staker.unwant_owner(owner)
            case "all":
                world.floor = world.head
                world.staker.mark_all()
                world.staker.open(world.head.hash)
                world.read(world.staker)
            case "load":
                world.load(world.staker)
                world.assert_same()
    world.load(world.staker)
    world.assert_same()


def test_an_old_answer_and_a_malformed_one_count_for_nothing() -> None:
    staker = V3Staker(STAKER)
    staker.want_owner(OWNERS[0])
    old = staker.history_query(is_late=False)
    assert old is not None and old.topics == ((ev.INCENTIVE_CREATED,),)
    staker.mark_all()
    assert staker.absorb_history(old, []) == {}
    query = staker.history_query(is_late=False)
    assert query is not None and query.topics == old.topics
    short = Log(
        address=STAKER, topics=(ev.INCENTIVE_CREATED,), data="", block_hash=BlockHash("0x"), block_number=1, index=0,
        tx_hash="0x",
    )  # fmt: skip
    with pytest.raises(RetryableError):
        staker.check(short)
    assert staker.absorb_history(query, [short]) == {}
    # It failed: asked again after a minute, and until then the others are.
    assert (after := staker.history_query(is_late=False)) is not None and after.topics[0] == (ev.DEPOSIT_TRANSFERRED,)
    staker.take_changed(61)
    assert (again := staker.history_query(is_late=False)) is not None and again.topics == old.topics


def test_what_nobody_wants_is_forgotten() -> None:
    world = World(3)
    world.extend(30)
    world.tracked.update(IDS)
    world.owners.update(OWNERS)
    for owner in OWNERS:
        world.staker.want_owner(owner)
    world.load(world.staker)
    world.tracked.clear()
    for token_id in IDS:
        world.staker.untrack(token_id)
    for owner in OWNERS:
        world.staker.unwant_owner(owner)
    staker = world.staker
    assert not (staker._tokens or staker._owners or staker._owners_of or staker._staked_in or staker._incentives)
    assert not (staker._stale or staker._load or staker._changed_claims)
