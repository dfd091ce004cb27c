"""A chain of modelled blocks, and a follower that drives a book along it the way the engine's shell does.

The follower keeps what a client would keep: each channel's state, moved by changes alone.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rtserver.domain.chain import BlockRef, Header, Log, Rollback
from rtserver.domain.diff import Change, State, apply
from rtserver.domain.errors import ClientError
from rtserver.domain.ids import BlockHash, ChainId, TokenId
from rtserver.engine.core import EngineCore
from rtserver.protocols.base import Book, HistoryQuery, Life, LogFilter, Sample
from rtserver.protocols.channels import Channel
from rtserver.protocols.uniswap_v3.book import UniswapV3Book
from rtserver.protocols.uniswap_v3.deployments import POOL_INIT_CODE_HASH
from rtserver.worth.aggregator import Aggregator, PricePolicy

from .model import FACTORY, MANAGER, USD, Contracts

__all__ = ["CHAIN", "KIND", "BlockModel", "ChainModel", "Follower"]

CHAIN = ChainId(31337)
KIND = "uniswap-v3"
BUDGET = 10_000


@dataclass(eq=False)
class BlockModel:
    """A block: its header, its parent, the state after it and its logs."""

    header: Header
    parent: BlockModel | None
    state: Contracts
    logs: list[Log]

    @property
    def branch(self) -> list[BlockModel]:
        """Return the block and all its ancestors, oldest first."""
        blocks: list[BlockModel] = []
        block: BlockModel | None = self
        while block is not None:
            blocks.append(block)
            block = block.parent
        return blocks[::-1]


class ChainModel:
    """All blocks that ever were, on every branch."""

    def __init__(self) -> None:
        self._count = 0
        self.genesis = self.mine(None, lambda contracts: None)

    def mine(self, parent: BlockModel | None, act: Callable[[Contracts], None]) -> BlockModel:
        """Add a block with these actions on top of any block."""
        state = Contracts() if parent is None else parent.state.copy()
        act(state)
        self._count += 1
        block_hash = BlockHash(f"0x{self._count:064x}")
        number = 1 if parent is None else parent.header.number + 1
        header = Header(
            number=number,
            hash=block_hash,
            parent_hash=BlockHash("0x" + "0" * 64) if parent is None else parent.header.hash,
            timestamp=1_000 + number,
            logs_bloom=0,
        )
        logs = [
            Log(
                address=address,
                topics=topics,
                data=data,
                block_hash=block_hash,
                block_number=number,
                index=index,
                tx_hash="0x",
            )
            for index, (address, topics, data) in enumerate(state.logs)
        ]
        return BlockModel(header, parent, state, logs)


@dataclass
class _Asked:
    book: Book
    query: HistoryQuery
    logs: list[Log] = field(default_factory=list)


class Follower:
    """An engine's core that follows one branch."""

    def __init__(self, head: BlockModel) -> None:
        self.book = UniswapV3Book(
            chain_id=CHAIN,
            factory=FACTORY,
            position_manager=MANAGER,
            init_code_hash=POOL_INIT_CODE_HASH,
            stablecoins=[USD],
        )
        prices = Aggregator(CHAIN, stablecoins=[USD], policy=PricePolicy(min_depth_usd=0), clock=lambda: 0.0)
        self.core = EngineCore(CHAIN, {KIND: self.book}, prices)
        self.head = head
        self.wanted: dict[str, Channel] = {}
        self.states: dict[str, State] = {}
        self.refused: dict[str, ClientError] = {}
        self._published: BlockHash | None = None
        self._rollback: Rollback | None = None
        self._asked: _Asked | None = None
        # No block below this one can be told apart: whoever links blocks restarts instead of going there.
        self.floor = 1
        self.core.fold(head.header.hash, [])

    def want(self, channel: Channel) -> None:
        """Open a channel."""
        if channel.name not in self.wanted:
            self.wanted[channel.name] = channel
            self.core.want(channel)

    def unwant(self, channel: Channel) -> None:
        """Close a channel."""
        if self.wanted.pop(channel.name, None) is not None:
            self.states.pop(channel.name, None)
            self.core.unwant(channel)

    # --- blocks ---------------------------------------------------------------------------------------

    def take(self, blocks: Sequence[BlockModel]) -> None:
        """Fold blocks that follow the head, oldest first."""
        for block in blocks:
            wanted: LogFilter = self.core.log_filter()
            mine = [log for log in block.logs if log.address in wanted.addresses and log.topics[0] in wanted.topics]
            self.core.fold(block.header.hash, mine)
            self.head = block

    def reorg(self, blocks: Sequence[BlockModel]) -> None:
        """Leave the branch for another, whose blocks above the common ancestor these are."""
        ancestor = blocks[0].parent
        assert ancestor is not None
        dropped = [b for b in self.head.branch if b.header.number > ancestor.header.number]
        self.core.unwind([block.header.hash for block in reversed(dropped)])
        self._rollback = Rollback(
            to=BlockRef(number=ancestor.header.number, hash=ancestor.header.hash),
            dropped=tuple(block.header.hash for block in dropped),
        )
        self.take(blocks)

    def restart(self, head: BlockModel) -> None:
        """Begin again at a head of which no ancestor is known."""
        self.core.mark_all()
        self.core.fold(head.header.hash, [])
        self._rollback = Rollback(to=None, dropped=())
        self.head = head
        self.floor = head.header.number

    # --- reads ----------------------------------------------------------------------------------------

    def read(self, budget: int = BUDGET) -> int:
        """Do one round of reads at the head; return how many there were."""
        plan = self.core.plan(budget)
        self.core.absorb(plan, [self.head.state.answer(to, data) for to, data in plan.calls])
        return len(plan.calls)

    def settle(self, budget: int = BUDGET) -> None:
        """Read what the blocks touched, and publish once that is all; the rest is for the next try."""
        for _ in range(8):
            if self.core.is_settled():
                self.publish()
                return
            self.read(budget)

    def load(self) -> None:
        """Read until nothing is left to read, history too, and publish."""
        while self.read() or self.ask_history():
            self.answer_history()
        self.publish()
        assert not self.core.is_opening

    def ask_history(self) -> bool:
        """Send the next history query, if there is one; the answer holds what the branch has now."""
        wanted = None
        if self._asked is None:
            wanted = self.core.history_query() or self.core.history_query(is_late=True)
        if wanted is not None:
            book, query = wanted
            ids = set(query.topics[1])
            logs = [
                log
                for block in self.head.branch
                for log in block.logs
                if log.address == query.address and log.topics[0] in query.topics[0] and log.topics[1] in ids
            ]
            self._asked = _Asked(book, query, logs)
        return self._asked is not None

    def answer_history(self, *, readable: bool = True) -> None:
        """Deliver the answer to the query that was sent, however long ago."""
        if self._asked is not None:
            self._asked.book.absorb_history(self._asked.query, self._asked.logs if readable else None)
            self._asked = None

    # --- what a client sees ---------------------------------------------------------------------------

    def publish(self) -> None:
        """Evaluate, and apply what comes out to the clients' copies."""
        header = self.head.header
        update = self.core.evaluate(header, self._rollback, is_new_head=header.hash != self._published)
        self._rollback, self._published = None, header.hash
        for name, change in update.changes.items():
            assert not set(change.set) & set(change.patch)
            assert not (set(change.set) | set(change.patch)) & set(change.remove)
            apply(self.states[name], copy.deepcopy(change))
        for name, patched in update.patched.items():
            if name in update.changes:
                change = update.changes[name]
                assert not patched.keys() & {*change.set, *change.patch, *change.remove}
            texts = {key: json.loads(text) for key, (_, text) in patched.items()}
            apply(self.states[name], Change(patch=texts))
        lone = [pair for batch in update.lone for pair in zip(batch.channels, batch.texts, strict=True)]
        assert len(dict(lone)) == len(lone)
        assert not dict(lone).keys() & (update.changes.keys() | update.patched.keys())
        for name, text in lone:
            (key,) = self.states[name]
            apply(self.states[name], Change(patch={key: json.loads(text)}))
        for name, state in update.opened.items():
            self.states[name] = copy.deepcopy(state)
        for name, error in update.refused.items():
            self.refused[name] = error
            del self.wanted[name]

    def fresh(self) -> dict[str, State]:
        """Return the states that a follower started at this head sees; nothing for what it refuses."""
        other = self.other()
        return {name: other.states.get(name, {}) for name in self.wanted}

    def other(self) -> Follower:
        """Return a follower started at this head with the same wishes, everything read."""
        other = Follower(self.head)
        for channel in self.wanted.values():
            other.want(channel)
        other.load()
        return other

    def lives(self) -> dict[int, tuple[Sample, Life | None]]:
        """Return what positions are and what happened to them, as far as blocks and the past tell it."""
        found = self.book.samples(map(TokenId, self.head.state.nfts))
        return {sample.token_id: (sample, _unpriced(self.book.life(sample.token_id))) for sample in found}

    def position(self, token_id: int) -> dict[str, object]:
        """Return a tracked position's view."""
        view = self.book.position(TokenId(token_id))
        assert view is not None
        return dict(view)


def _unpriced(life: Life | None) -> Life | None:
    """Return a life without what only those know who were there: prices and times."""
    if life is None:
        return None
    events = [replace(event, timestamp=None, cents0=None, cents1=None, basis=None) for event in life.events]
    return replace(life, events=tuple(events))
