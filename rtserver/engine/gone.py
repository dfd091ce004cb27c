"""What left the chain since clients were last told: the difference between what they know and what is. Pure.

Several events may come before one step, and a chain may turn back to where it was: clients hear only of blocks that
they were told of and that are gone now.
"""

from ..domain.chain import BlockRef, ChainEvent, Header, Reorged, Rollback
from ..domain.ids import BlockHash

__all__ = ["Gone"]


class Gone:
    """The published blocks that left the chain since the last step."""

    def __init__(self) -> None:
        self._dropped: dict[BlockHash, Header] = {}
        self._new: set[BlockHash] = set()
        self._is_unknown = False

    def take(self, event: ChainEvent) -> None:
        """Note how the chain moved."""
        if isinstance(event, Reorged):
            self._is_unknown = self._is_unknown or event.ancestor is None
            for block in event.dropped:
                if block.hash in self._new:
                    self._new.remove(block.hash)
                else:
                    self._dropped[block.hash] = block
        for block in event.blocks:
            if self._dropped.pop(block.hash, None) is None:
                self._new.add(block.hash)

    def rollback(self) -> Rollback | None:
        """Return what clients are told, oldest block first: None where nothing that they know of is gone."""
        dropped = sorted(self._dropped.values(), key=lambda block: block.number)
        hashes = tuple(block.hash for block in dropped)
        if self._is_unknown:
            return Rollback(to=None, dropped=hashes)
        if not dropped:
            return None
        return Rollback(to=BlockRef(number=dropped[0].number - 1, hash=dropped[0].parent_hash), dropped=hashes)
