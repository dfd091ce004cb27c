"""Whole states as JSON, encoded once for all who are sent the same.

After a restart, or when a page with a known owner is opened a thousand times, everyone asks for the same few
channels. Never knows who asks, or what else a snapshot says.
"""

from collections.abc import Sequence
from typing import Final

from .stream import Stream

__all__ = ["MAX_BYTES", "Snapshots"]

# What is kept, whether it is still current or not: all goes when there is no room for the next one. Enough for an owner
# of ten thousand positions, or for ten thousand of one.
MAX_BYTES: Final = 16 * 1024 * 1024


class Snapshots:
    """The states that were asked for lately."""

    def __init__(self) -> None:
        # By epoch and seq: one place of one stream, so one state.
        self._known: dict[tuple[str, int], Sequence[bytes]] = {}
        self._size = 0

    def parts(self, stream: Stream) -> Sequence[bytes]:
        """Return a stream's state in parts, as `Stream.snapshot_parts` yields them."""
        place = stream.epoch, stream.seq
        parts = self._known.get(place)
        if parts is None:
            parts = tuple(stream.snapshot_parts())
            size = sum(map(len, parts))
            if self._size + size > MAX_BYTES:
                self._known.clear()
                self._size = 0
            if size <= MAX_BYTES:
                self._known[place] = parts
                self._size += size
        return parts

    def __len__(self) -> int:
        """Return the bytes that are kept."""
        return self._size
