"""Past logs over a range of blocks, in pieces that the provider allows. Which piece is next is decided here; pure.

The whole range is tried first. What a refusal says decides the next piece: the range that it suggests, the number
of blocks that it allows, or half. Pieces grow again while they are answered, up to a limit that was named.
"""

from dataclasses import dataclass

from .refusals import Refusal, allowed_blocks, suggested_range
from .rpc import RpcError

__all__ = ["Pieces"]

# Words that are not known are most likely about the range, too: there is little else to refuse.
_SPLIT = (Refusal.TOO_WIDE, Refusal.TOO_MANY, Refusal.TOO_LARGE, Refusal.OTHER)


@dataclass(slots=True)
class Pieces:
    """What is left of a range of blocks, both ends included.

    Args:
        first: The first block that was not answered yet.
        last: The last one.
        size: How many blocks are asked for at a time now.
        limit: How many may be, by the provider's words.
        asked: How many pieces were answered or refused.
    """

    first: int
    last: int
    size: int = 0
    limit: int | None = None
    asked: int = 0

    def __post_init__(self) -> None:
        self.size = max(self.last - self.first + 1, 1)

    @property
    def is_done(self) -> bool:
        """Return whether all was answered."""
        return self.first > self.last

    def next(self) -> tuple[int, int]:
        """Return the piece to ask for: first and last block."""
        return self.first, min(self.first + self.size - 1, self.last)

    def answered(self) -> None:
        """Note that the piece was answered."""
        self.asked += 1
        self.first += self.size
        self.size = 2 * self.size if self.limit is None else min(2 * self.size, self.limit)

    def begin(self, first: int) -> None:
        """Leave out what is before a block."""
        self.first = max(self.first, first)

    def refused(self, error: RpcError) -> bool:
        """Note a refusal; return whether a smaller piece is worth a try."""
        self.asked += 1
        first, last = self.next()
        blocks = last - first + 1
        if error.kind not in _SPLIT or blocks == 1:
            return False
        size = blocks // 2
        suggested = suggested_range(error.message)
        allowed = allowed_blocks(error.message)
        # A suggestion for our own start; Infura's may lie elsewhere.
        if suggested is not None and suggested[0] == first and first <= suggested[1] < last:
            size = suggested[1] - first + 1
        elif allowed is not None and allowed < blocks:
            size = allowed
        if error.kind is Refusal.TOO_WIDE and allowed is not None:
            self.limit = allowed
        self.size = max(size, 1)
        return True
