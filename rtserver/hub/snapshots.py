"""Whole states as JSON, encoded once for all who are sent the same.

After a restart, or when a page with a known owner is opened a thousand times, everyone asks for the same few
channels. Never knows who asks, or what else a snapshot says.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from .stream import Stream

__all__ = ["KEPT_S", "MAX_BYTES", "Snapshots"]

# Enough for an owner of ten thousand positions, or for ten thousand of one.
MAX_BYTES: Final = 16 * 1024 * 1024
# Most states are old ones with the next block, and those who come back together come within seconds.
KEPT_S: Final = 10.0


class Snapshots:
    """The states that were asked for lately.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # By epoch and seq: one place of one stream, so one state. The oldest first, each with its time and size.
        self._known: OrderedDict[tuple[str, int], tuple[float, int, Sequence[bytes]]] = OrderedDict()
        self._size = 0

    def parts(self, stream: Stream) -> Sequence[bytes]:
        """Return a stream's state in parts, as `Stream.snapshot_parts` yields them."""
        place = stream.epoch, stream.seq
        known = self._known.get(place)
        if known is not None:
            return known[2]
        parts = tuple(stream.snapshot_parts())
        size = sum(map(len, parts))
        if size <= MAX_BYTES:
            while self._size + size > MAX_BYTES:
                self._drop_oldest()
            self._known[place] = self._clock(), size, parts
            self._size += size
        return parts

    def tend(self, now: float) -> None:
        """Let go of what was encoded a while ago, whether it is still current or not."""
        while self._known and next(iter(self._known.values()))[0] <= now - KEPT_S:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (_, size, _) = self._known.popitem(last=False)
        self._size -= size

    def __len__(self) -> int:
        """Return the bytes that are kept."""
        return self._size
