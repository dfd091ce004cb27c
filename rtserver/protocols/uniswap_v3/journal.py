"""What each recent block touched, so that it can be undone by reading the same things again.

Undo by re-reading needs no old values, with one exception: owed principal is a running tally that no
contract stores, so the tally before a block is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...domain.ids import Address, BlockHash, Tick, TokenId
from .state import RangeKey

__all__ = ["Journal", "Touched"]


@dataclass(slots=True)
class Touched:
    """Everything that one block's logs touched, and everything first read at that block.

    `pools` maps to the (lowest, highest) tick visited, None where price and ticks did not move.
    `whole_pools` were first read at this block: nothing of them is known for any earlier one.
    """

    pools: dict[Address, tuple[Tick, Tick] | None] = field(default_factory=dict)
    whole_pools: set[Address] = field(default_factory=set)
    ticks: set[tuple[Address, Tick]] = field(default_factory=set)
    cores: set[RangeKey] = field(default_factory=set)
    token_ids: set[TokenId] = field(default_factory=set)
    owners: set[Address] = field(default_factory=set)
    first_read_ids: set[TokenId] = field(default_factory=set)
    first_read_owners: set[Address] = field(default_factory=set)
    principal_before: dict[TokenId, tuple[int | None, int | None]] = field(default_factory=dict)
    # Positions that were sampled when this block was the newest, and its timestamp; None before it was evaluated.
    sampled: set[TokenId] = field(default_factory=set)
    evaluated_at: int | None = None

    def visit(self, pool: Address, low: Tick, high: Tick) -> None:
        """Widen the span of ticks that a pool visited in this block."""
        span = self.pools.get(pool)
        self.pools[pool] = (low, high) if span is None else (min(span[0], low), max(span[1], high))


class Journal:
    """The records of recent blocks by hash. Its bound is kept by whoever follows the chain."""

    def __init__(self) -> None:
        self._records: dict[BlockHash, Touched] = {}
        self._current = Touched()
        self._carried = Touched()
        self._head = BlockHash("")

    @property
    def current(self) -> Touched:
        """Return the record of the newest block."""
        return self._current

    @property
    def head(self) -> BlockHash:
        """Return the newest block."""
        return self._head

    def open(self, block_hash: BlockHash) -> Touched:
        """Begin (or begin again) the record of a block."""
        self._head = block_hash
        self._current = self._records[block_hash] = self._carried
        self._carried = Touched()
        return self._current

    def pop(self, block_hash: BlockHash) -> Touched | None:
        """Take a block's record out to undo it, None where there is none.

        What was first read at this block is no better known for any block before the next one: that one's record
        begins with it. Otherwise a second fork, deeper than the first, would leave it as the first one left it.
        """
        record = self._records.pop(block_hash, None)
        if record is not None:
            carried = self._carried
            carried.whole_pools |= record.whole_pools
            carried.ticks |= record.ticks
            carried.cores |= record.cores
            carried.first_read_ids |= record.first_read_ids
        return record

    def forget(self, block_hash: BlockHash) -> None:
        """Drop a record that is too deep to be needed."""
        self._records.pop(block_hash, None)

    # --- over a restart -------------------------------------------------------------------------------

    def hashes(self) -> list[BlockHash]:
        """Return the blocks that there are records of."""
        return list(self._records)

    def record(self, block_hash: BlockHash) -> Touched:
        """Return a block's record; KeyError where there is none."""
        return self._records[block_hash]

    @property
    def carried(self) -> Touched:
        """Return what blocks that left the chain have left to the next one."""
        return self._carried

    def restore(self, records: Mapping[BlockHash, Touched]) -> None:
        """Take the records of an earlier process; the one without a hash is what was carried."""
        self._records = dict(records)
        self._carried = self._records.pop(BlockHash(""), Touched())

    def go_on(self, block_hash: BlockHash) -> None:
        """Make a block the newest one without beginning its record again: it has been folded before."""
        self._head = block_hash
        self._current = self._records.setdefault(block_hash, Touched())

    def __len__(self) -> int:
        """Return how many blocks can be undone."""
        return len(self._records)
