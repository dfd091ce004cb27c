"""Answers about the past that were given lately: a page is opened by many, and each would be a query of the database.

An answer is used for some seconds, a fraction of what lies between two records, and never after a reorganisation. Who
asks for what is being read already waits for that. What is not there is an answer, too.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..domain.ids import ChainId
from ..obs.metrics import Metrics

__all__ = ["MAX_BYTES", "PastAnswer", "PastAnswers", "PastKey"]

# A thousand points are 250 KB; most ask for two hundred.
MAX_BYTES: Final = 16 * 1024 * 1024
# Records are taken ten seconds apart at most often, a minute by default: a chart doesn't show whether it ends now.
_FRESH_S: Final = 5.0

# Chain, protocol, token id, the window's length in seconds, points.
PastKey: TypeAlias = tuple[ChainId, str, int, int, int]


@dataclass(frozen=True, slots=True)
class PastAnswer:
    """A body and its tag."""

    body: bytes
    etag: str


class PastAnswers:
    """The answers of the last seconds.

    Args:
        turns: Returns a number that is another one after each reorganisation of a chain.
        metrics: Where hits are counted.
        clock: Monotonic seconds.
    """

    def __init__(
        self, turns: Callable[[ChainId], int], metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._turns = turns
        self._clock = clock
        self._hits = metrics.cache_hits.labels("history")
        self._misses = metrics.cache_misses.labels("history")
        # In the order of time.
        self._kept: OrderedDict[PastKey, tuple[int, float, PastAnswer]] = OrderedDict()
        self._size = 0
        self._reading: dict[PastKey, asyncio.Future[None]] = {}

    async def get(self, key: PastKey, read: Callable[[], Awaitable[PastAnswer]]) -> PastAnswer:
        """Return an answer of now; made by `read` unless someone has just had it. Raises what `read` raises."""
        while True:
            kept = self._kept.get(key)
            if kept is not None and kept[0] == self._turns(key[0]) and self._clock() - kept[1] < _FRESH_S:
                self._hits.inc()
                return kept[2]
            reading = self._reading.get(key)
            if reading is None:
                return await self._read(key, read)
            # It may fail, or be of another branch by then: then this one is next.
            await asyncio.wait({reading})

    async def _read(self, key: PastKey, read: Callable[[], Awaitable[PastAnswer]]) -> PastAnswer:
        self._misses.inc()
        reading = self._reading[key] = asyncio.get_running_loop().create_future()
        try:
            turns = self._turns(key[0])
            answer = await read()
            if turns == self._turns(key[0]):
                self._keep(key, turns, answer)
            return answer
        finally:
            del self._reading[key]
            reading.set_result(None)

    def _keep(self, key: PastKey, turns: int, answer: PastAnswer) -> None:
        before = self._kept.pop(key, None)
        self._size += len(answer.body) - (0 if before is None else len(before[2].body))
        # What is too old goes with the next one: what is left of a crowd is the answers of five seconds.
        now = self._clock()
        self._kept[key] = (turns, now, answer)
        while self._kept and (self._size > MAX_BYTES or now - next(iter(self._kept.values()))[1] >= _FRESH_S):
            _, (*_, oldest) = self._kept.popitem(last=False)
            self._size -= len(oldest.body)

    def __len__(self) -> int:
        """Return the bytes that are kept."""
        return self._size
