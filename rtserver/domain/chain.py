"""What a chain tells: blocks, logs, and the two things that can happen to its head.

A reorganisation is a value (`Reorged`), not an exception.
"""

from dataclasses import dataclass

from .ids import Address, BlockHash, ChainId

__all__ = ["BlockRef", "ChainEvent", "Committed", "Header", "Log", "Reorged", "Rollback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRef:
    """A block by height and hash; only the hash identifies it."""

    number: int
    hash: BlockHash


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The part of a block header that following a chain needs.

    `logs_bloom` is the 2048-bit filter of the yellow paper as a big-endian integer; `timestamp` is in
    seconds since the epoch.
    """

    number: int
    hash: BlockHash
    parent_hash: BlockHash
    timestamp: int
    logs_bloom: int

    @property
    def ref(self) -> BlockRef:
        """Return the block's identity."""
        return BlockRef(number=self.number, hash=self.hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One event as the node answers it: `topics` are 0x-hex words, `data` is hex without 0x."""

    address: Address
    topics: tuple[str, ...]
    data: str
    block_hash: BlockHash
    block_number: int
    index: int
    tx_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """One or more blocks extend the head, oldest first."""

    chain_id: ChainId
    blocks: tuple[Header, ...]

    @property
    def head(self) -> Header:
        """Return the new head."""
        return self.blocks[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorged:
    """`dropped` blocks left the chain and `blocks` took their place above `ancestor`, oldest first each.

    `ancestor` is None when no common block is known: everything has to be read again.
    `blocks` holds at least the new head; it may be shorter than `dropped` (the head went backward).
    """

    chain_id: ChainId
    ancestor: BlockRef | None
    dropped: tuple[Header, ...]
    blocks: tuple[Header, ...]

    @property
    def head(self) -> Header:
        """Return the new head."""
        return self.blocks[-1]


ChainEvent = Committed | Reorged


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """What a client is told about a reorganisation: where the chain went back to and what it lost."""

    to: BlockRef | None
    dropped: tuple[BlockHash, ...]
