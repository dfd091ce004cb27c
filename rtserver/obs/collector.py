"""When garbage is collected: often what is young, seldom all of it. Frees nothing that is used.

Almost everything here dies with its last reference. What is left for the collector are cycles: an error that was
caught with the frames it came through, a connection and its tasks, a statement of the database. By Python's own rule it
looks for them after so many new objects, in the midst of a block that makes tens of thousands; and what was still in
use when it looked first is looked at again 20 times later, after hours of a quiet chain. So it is done by the clock.
"""

import asyncio
import gc
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
# Rounds until is looked whether there is much more than when all was walked: counting takes 5 ms with 50,000 positions.
_LOOK_EVERY: Final = 60
# All is walked once it has grown by so much, so that walking costs a constant share of making: 0.45 s with 50,000
# positions, 20 ms with a hundred. A few connections' worth is nothing to stop for.
_GROWTH: Final = 1.25
_FEW: Final = 5_000


class Collector:
    """Collects garbage in this process, as a context manager around all that runs on a loop.

    Args:
        every_s: Seconds between two rounds.
    """

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._rounds = 0
        self._old = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.TimerHandle | None = None
        self._before = gc.get_threshold()

    def __enter__(self) -> Self:
        self._before = gc.get_threshold()
        gc.set_threshold(*COLLECTOR)
        # Modules and what they are made of, two thirds of all objects of a small server: never garbage.
        gc.collect()
        gc.freeze()
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_later(self._every_s, self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._next is not None:
            self._next.cancel()
        gc.unfreeze()
        gc.set_threshold(*self._before)

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
        if self._rounds % _LOOK_EVERY == 0 and _old_objects() > _GROWTH * self._old + _FEW:
            gc.collect()
            self._old = _old_objects()


def _old_objects() -> int:
    return len(gc.get_objects(generation=2))
