"""The cases of a new head, enumerated: next, duplicate, gap, reorg, too deep. Pure; fetches nothing.

Invariant: the window is a run of blocks in which each one's parent_hash is the hash of the one before.
A head arrives with the ancestry that is known of it; where that does not reach the window, the answer is
a `Gap` that names the block to fetch, and the caller asks again with a longer ancestry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..domain.chain import BlockRef, Header
from ..domain.ids import BlockHash

__all__ = [
    "MAX_GAP_BLOCKS",
    "MAX_UNDO_BLOCKS",
    "Duplicate",
    "Gap",
    "Linker",
    "Next",
    "Reorg",
    "TooDeep",
    "Verdict",
]

# Undo depth. Deeper reorgs rebuild from the chain instead of growing memory.
MAX_UNDO_BLOCKS: Final = 64
# Past this many missing blocks, reading everything once costs less than reading each block's logs.
MAX_GAP_BLOCKS: Final = 256


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The head, or one of its ancestors, was seen before: nothing to do."""


@dataclass(frozen=True, slots=True)
class Next:
    """The blocks follow the head directly, oldest first."""

    blocks: tuple[Header, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """Blocks are missing: the newest of them has this hash and height; `count` is the least number of them."""

    hash: BlockHash
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class Reorg:
    """`dropped` left the chain and `blocks` follow `ancestor`, oldest first each."""

    ancestor: BlockRef
    dropped: tuple[Header, ...]
    blocks: tuple[Header, ...]


@dataclass(frozen=True, slots=True)
class TooDeep:
    """The head can't be linked within the limits: start again from it. `dropped` is the whole window."""

    dropped: tuple[Header, ...]


Verdict: TypeAlias = Duplicate | Next | Gap | Reorg | TooDeep


class Linker:
    """The recent blocks of one chain, linked by parent hash.

    Args:
        depth: How many blocks back a reorg can be undone.
        max_gap: How many missing blocks are worth fetching.
    """

    def __init__(self, *, depth: int = MAX_UNDO_BLOCKS, max_gap: int = MAX_GAP_BLOCKS) -> None:
        self._depth = depth
        self._max_gap = max_gap
        self._window: list[Header] = []
        self._position: dict[BlockHash, int] = {}  # hash → number: heights in a window are consecutive

    @property
    def max_gap(self) -> int:
        """Return how many missing blocks are linked at most."""
        return self._max_gap

    @property
    def head(self) -> Header | None:
        """Return the newest block, None before the first."""
        return self._window[-1] if self._window else None

    @property
    def base(self) -> Header | None:
        """Return the oldest block that can be gone back to, None before the first."""
        return self._window[0] if self._window else None

    @property
    def blocks(self) -> tuple[Header, ...]:
        """Return the window, oldest first."""
        return tuple(self._window)

    def holds(self, block_hash: BlockHash) -> bool:
        """Return whether a block is in the window."""
        return block_hash in self._position

    def classify(self, ancestry: Sequence[Header]) -> Verdict:
        """Say how a new head relates to the window.

        Args:
            ancestry: The new head and what is known of its ancestors, oldest first, linked.
        """
        oldest, newest = ancestry[0], ancestry[-1]
        if newest.hash in self._position:
            return Duplicate()
        head = self.head
        if head is None:
            return TooDeep(())
        if oldest.parent_hash == head.hash:
            return Next(tuple(ancestry))
        if oldest.parent_hash in self._position:
            index = self._position[oldest.parent_hash] - self._window[0].number
            return Reorg(self._window[index].ref, tuple(self._window[index + 1 :]), tuple(ancestry))
        if oldest.number <= self._window[0].number or len(ancestry) > self._max_gap:
            return TooDeep(tuple(self._window))
        missing = oldest.number - 1 - head.number
        if missing + len(ancestry) > self._max_gap:
            return TooDeep(tuple(self._window))
        return Gap(oldest.parent_hash, oldest.number - 1, max(missing, 1))

    def accept(self, verdict: Next | Reorg) -> tuple[Header, ...]:
        """Move the head as a verdict says; return the blocks that became too deep to be undone."""
        if isinstance(verdict, Reorg):
            for block in verdict.dropped:
                del self._position[block.hash]
            del self._window[len(self._window) - len(verdict.dropped) :]
        for block in verdict.blocks:
            self._window.append(block)
            self._position[block.hash] = block.number
        surplus = tuple(self._window[: max(len(self._window) - self._depth - 1, 0)])
        for block in surplus:
            del self._position[block.hash]
        del self._window[: len(surplus)]
        return surplus

    def retreat(self, block_hash: BlockHash) -> Reorg | TooDeep:
        """Say what it takes to go back to a block of the window.

        The block itself is dropped and taken again: what was read at it is then read at it once more.
        """
        index = self._position[block_hash] - self._window[0].number
        if index == 0:
            return TooDeep(tuple(self._window))
        return Reorg(self._window[index - 1].ref, tuple(self._window[index:]), (self._window[index],))

    def settle(self, block_hash: BlockHash) -> tuple[Header, ...]:
        """Let go of the blocks before one that is final; return them. Nothing happens if it is not in the window."""
        if block_hash not in self._position:
            return ()
        gone = tuple(self._window[: self._position[block_hash] - self._window[0].number])
        for block in gone:
            del self._position[block.hash]
        del self._window[: len(gone)]
        return gone

    def restart(self, head: Header, ancestors: Sequence[Header] = ()) -> tuple[Header, ...]:
        """Forget everything and begin at a head; return what was forgotten.

        Args:
            head: The new head.
            ancestors: Blocks before it, oldest first; those that don't link up to it are left out.
        """
        gone = tuple(self._window)
        window = [head]
        for header in reversed(ancestors):
            if header.hash != window[0].parent_hash or len(window) > self._depth:
                break
            window.insert(0, header)
        self._window = window
        self._position = {header.hash: header.number for header in window}
        return gone
