"""What is kept of a chain, as values. Pure: who writes them and where is not decided here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from ..domain.chain import BlockRef
from ..domain.diff import State

__all__ = ["ALONE", "CHANNELS", "Changes", "Checkpoint", "Fact", "Facts", "KeptStream", "generation_of"]

# What JSON can hold. Integers over 2^63 go as text: not every reader of JSON has them.
Fact: TypeAlias = Any
# Of one part (a protocol's book, or the channels): key → fact.
Facts: TypeAlias = Mapping[str, Fact]

# The part that holds the names of the open channels. No protocol is called so.
CHANNELS: Final = "channels"
# The charge of a process that takes no turns with others: it is not compared with later ones.
ALONE: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStream:
    """A channel's stream as it was when nothing could be published any more.

    `tag` is the part of a block hash that its last cursor held.
    """

    epoch: str
    seq: int
    tag: str
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A chain as it was at one block: the last of `window`.

    Args:
        window: The newest blocks, oldest first; consecutive heights.
        facts: What is known, by part.
        streams: By channel; empty unless the process ended in order, and a moment ago.
    """

    window: tuple[BlockRef, ...]
    facts: Mapping[str, Facts]
    streams: Mapping[str, KeptStream] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to write so that the store holds the chain at the last block of `window`.

    Args:
        is_whole: Whether `facts` is all there is; otherwise it is what changed since the last write.
        window: As in `Checkpoint`.
        facts: By part; None stands for a fact that is no more.
        streams: All streams, when this is the last write of a process that ends in order.
        charge: Of several processes that take turns, the token of the one whose turn it was, which begins with its
            generation.
    """

    is_whole: bool
    window: tuple[BlockRef, ...]
    facts: Sequence[tuple[str, Mapping[str, Fact | None]]]
    streams: Mapping[str, KeptStream] = field(default_factory=dict)
    charge: str = ALONE


def generation_of(writer: str) -> int:
    """Return the generation of a turn; 0 of a process that takes none."""
    digits, dash, _ = writer.partition("-")
    return int(digits) if dash else 0
