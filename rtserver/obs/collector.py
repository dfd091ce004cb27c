"""When garbage is collected: often what is young, seldom all of it. Frees nothing that is used.

Almost everything here dies with its last reference. What is left for the collector are cycles: an error that was
caught with the frames it came through, a connection and its tasks, a statement of the database. By Python's own rule it
looks for them after so many new objects, in the midst of a block that makes tens of thousands; and what was still in
use when it looked first is looked at again 20 times later, after hours of a quiet chain. So it is done by the clock.

What was freed goes back to the kernel then, too: the allocator of C keeps what lies between two pieces that are in use,
and so each peak (a second in which all endpoints refused, a store that was locked) would be what the process holds from
then on.
"""

import asyncio
import ctypes
import gc
import sys
from types import TracebackType
from typing import Final, Self

__all__ = ["COLLECTOR", "EVERY_S", "Collector"]

# Beside the clock, after so many new objects. A block makes tens of thousands of short-lived tuples and no cycles; with
# Python's default (700) the collector walks the young generation 70 times as often, for nothing: a third of a large
# block's time.
COLLECTOR: Final = (50_000, 20, 50)
# What is new since then is walked: nothing on an idle chain, 4 ms where 50,000 positions moved meanwhile. While all
# endpoints refuse, a second's errors are some megabytes: left alone for longer, they are what the process then holds.
EVERY_S: Final = 1.0
# Rounds until also that is walked which was in use when it was new.
_MIDDLE_EVERY: Final = 12
# All is walked once so much more memory is in use than after the last time, so that walking costs a constant share of
# making: 0.45 s with 50,000 positions, 20 ms with a hundred. In blocks; a few, some 2 MB, are nothing to stop for.
_GROWTH: Final = 1.25
_FEW: Final = 20_000
# And every so many rounds where that is soon done: 40 ms for so many blocks. What is held meanwhile is no growth then.
_ALL_EVERY: Final = 300
_SOON_DONE: Final = 500_000
# Of glibc alone; elsewhere there is nothing to do.
_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


class Collector:
    """Collects garbage in this process, as a context manager around all that runs on a loop.

    Args:
        every_s: Seconds between two rounds.
    """

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._rounds = 0
        # Blocks of memory: of what was there before us, and in use beyond that when all was walked last.
        self._before_us = self._used = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.TimerHandle | None = None
        self._thresholds = gc.get_threshold()

    def __enter__(self) -> Self:
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*COLLECTOR)
        # Modules and what they are made of, two thirds of all objects of a small server: never garbage.
        gc.collect()
        gc.freeze()
        self._before_us = sys.getallocatedblocks()
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_later(self._every_s, self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._next is not None:
            self._next.cancel()
        gc.unfreeze()
        gc.set_threshold(*self._thresholds)

    def _run(self) -> None:
        assert self._loop is not None
        self.round()
        self._next = self._loop.call_later(self._every_s, self._run)

    def round(self) -> None:
        """Collect what it is time for."""
        self._rounds += 1
        if self._rounds % _MIDDLE_EVERY:
            gc.collect(0)
            return
        gc.collect(1)
        used = self._count()
        is_time = self._rounds % _ALL_EVERY == 0 and used < _SOON_DONE
        if is_time or used > _GROWTH * self._used + _FEW:
            gc.collect()
            self._used = self._count()
        if is_time and _TRIM is not None:
            _TRIM(0)
        # What was given up since need not be had again before all is walked.
        self._used = min(self._used, self._count())

    def _count(self) -> int:
        return max(sys.getallocatedblocks() - self._before_us, 0)
