"""What the engine needs from the world, declared by itself; app joins the pieces."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ..domain.chain import BlockRef, ChainEvent, Header, Log, Reorged
from ..domain.diff import Change, State
from ..domain.ids import Address, BlockHash
from ..domain.update import BlockUpdate
from ..protocols.base import Book, Call, LogFilter, Plan, Prices

__all__ = ["Pricer", "Reader", "Records", "Remembers", "Sink", "Source"]


class Reader(Protocol):
    """Reads of one chain; see chain.reader."""

    calls_sent: int

    async def probe(self, head: Header) -> None:
        """Find out how to batch calls."""

    async def header(self, block_hash: BlockHash) -> Header | None:
        """Return a header by hash, None where nobody has it."""

    async def headers(self, first: int, last: int) -> list[Header]:
        """Return the headers of a range of heights, oldest first, without those that are not to be had."""

    async def logs(self, blocks: Sequence[BlockHash], wanted: LogFilter) -> list[list[Log]]:
        """Return each block's wanted logs."""

    async def history(
        self,
        address: Address,
        topics: Sequence[Sequence[str]],
        until: Header,
        after: BlockRef | None = None,
        max_pieces: int | None = None,
    ) -> list[Log]:
        """Return all past logs of a contract after a block, or from its first one, up to another, oldest first."""

    async def call(self, calls: Sequence[Call], block: BlockHash, purpose: str) -> list[bytes | None]:
        """Return each static call's data at a block, None where it reverted."""


class Source(Protocol):
    """The chain's events; see chain.source."""

    forgotten: list[Header]

    @property
    def announced(self) -> Header | None:
        """Return the highest block that a node says there is."""

    @property
    def tags(self) -> Mapping[str, Header]:
        """Return the newest blocks that the nodes call "safe" and "finalized", where known."""

    async def start(self) -> Header:
        """Return the head to begin with."""

    async def next_event(self) -> ChainEvent:
        """Wait for the head to move."""


class Remembers(Protocol):
    """What outlives the process; see engine.memory."""

    async def resume(self, head: Header) -> bool:
        """Bring the engine from where an earlier process stopped to the head; False where there is nothing."""

    def published(self, head: Header) -> None:
        """Note that everything is settled at a head, and told."""


class Records(Protocol):
    """Who keeps the past of positions; see history.recorder. Synchronous: nothing comes between two steps."""

    def reorged(self, event: Reorged) -> None:
        """Note that blocks left the chain; what took their place is not read yet."""

    def published(self, head: Header) -> None:
        """Note that everything is settled at a head, and told."""


class Pricer(Protocol):
    """Prices of tokens, and what has to be read for them in a block's own call; see worth.aggregator."""

    @property
    def prices(self) -> Prices:
        """Return the prices as of the last update."""

    def log_filter(self) -> LogFilter:
        """Return the logs that announce new prices."""

    def fold(self, logs: Iterable[Log]) -> None:
        """Take a block's logs of those."""

    def mark_all(self) -> None:
        """Mark all that was read as stale: blocks were undone."""

    def is_settled(self) -> bool:
        """Return whether everything that is stale has been read."""

    def plan(self) -> Plan:
        """Return the reads for all that is stale."""

    def absorb(self, plan: Plan, results: Sequence[bytes | None]) -> None:
        """Take the answers to a plan; None stands for a reverted call."""

    def update(self, markets: Iterable[Book], header: Header) -> frozenset[Address]:
        """Price anew what these books read again, at a block; return the tokens whose price changed."""

    def state(self) -> State:
        """Return what the `prices:` channel shows."""

    def take_change(self) -> Change:
        """Return what changed in that since this was last asked."""


class Sink(Protocol):
    """Where updates go; see hub."""

    def publish(self, update: BlockUpdate) -> None:
        """Deliver a step. Synchronous: nothing comes between two steps."""
