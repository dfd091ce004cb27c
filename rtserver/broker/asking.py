"""A gateway's side of what engines are asked for: the answers it has, and who waits for others.

An answer is used under its own block only. Whoever asks for what isn't here waits, for a bounded time; while no engine
answers nobody waits, and gets what there is of the block.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ..domain.chain import Header
from ..domain.errors import PermanentError, RetryableError
from ..obs.metrics import Metrics
from .asks import AHEAD_S, Answer, AskLink, is_renewed

__all__ = ["Asking"]

log = structlog.get_logger(__name__)

# Answers that are kept, one or two kilobytes each.
_MAX_KEPT: Final = 5000
# Keys in one call.
_PART: Final = 200
# An answer may be of a block and yet grow: prices of then are found out later. So it is looked for again this often.
_FRESH_S: Final = 1.0
# A client waits for this; an engine at its pace answers in milliseconds.
_WAIT_S: Final = 2.0
# How often what is waited for is looked for without being told.
_LOOK_S: Final = 0.25
# An answer of a block that is not the head yet: how often it is looked whether it is.
_SOON_S: Final = 0.01


@dataclass(slots=True)
class _Kept:
    number: int
    hash: str
    at: float
    value: Any


class Asking:
    """Asks one engine.

    Args:
        name: The chain's name in logs.
        link: To the engine.
        head: Returns the block that answers have to be of.
        metrics: Where hits are counted.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        name: str,
        link: AskLink,
        head: Callable[[], Header | None],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._link = link
        self._head = head
        self._metrics = metrics
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        # What is waited for, by how many; and of these what was not looked for yet.
        self._waiting: dict[str, int] = {}
        self._unasked: dict[str, None] = {}
        # What was looked for in vain, under which block: what comes for it is no hit.
        self._missed: OrderedDict[str, str] = OrderedDict()
        self._work = asyncio.Event()
        self._news = asyncio.Event()
        # Set when someone waited in vain, until something comes: nobody waits meanwhile.
        self._is_silent = False

    async def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the answers that are to be had, all of the block that is the head on return.

        Those that no engine gives in time are missing.
        """
        deadline = self._clock() + _WAIT_S
        missing = self._missing(keys)
        counted = sum(map(is_renewed, missing))
        self._metrics.cache_hits.labels("rates").inc(sum(map(is_renewed, keys)) - counted)
        self._metrics.cache_misses.labels("rates").inc(counted)
        while missing:
            left_s = deadline - self._clock()
            if left_s <= 0 or self._head() is None:
                self._fall_silent()
                break
            if self._is_silent:
                self._unasked.update(dict.fromkeys(missing))
                self._work.set()
                break
            await self._wait(missing, left_s)
            missing = self._missing(keys)
        head = self._head()
        found = {key: kept for key in keys if (kept := self._kept.get(key)) is not None}
        return {key: kept.value for key, kept in found.items() if head is not None and kept.hash == head.hash}

    def _missing(self, keys: Sequence[str]) -> list[str]:
        head, now = self._head(), self._clock()
        missing = []
        for key in keys:
            kept = self._kept.get(key)
            if kept is None or head is None or kept.hash != head.hash or now - kept.at > _FRESH_S:
                missing.append(key)
            else:
                self._kept.move_to_end(key)
        return missing

    async def _wait(self, keys: Sequence[str], left_s: float) -> None:
        """Wait until something has come, or may have."""
        head, now = self._head(), self._clock()
        for key in keys:
            kept = self._kept.get(key)
            if kept is not None and head is not None and kept.number > head.number and now - kept.at < AHEAD_S:
                # The engine's step is on its way.
                await asyncio.sleep(min(left_s, _SOON_S))
                return
        for key in keys:
            if key not in self._waiting:
                self._unasked[key] = None
                self._work.set()
            self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            async with asyncio.timeout(min(left_s, _LOOK_S)):
                await self._news.wait()
        except TimeoutError:
            self._unasked.update(dict.fromkeys(keys))
            self._work.set()
        finally:
            for key in keys:
                self._waiting[key] -= 1
                if not self._waiting[key]:
                    del self._waiting[key]

    def _fall_silent(self) -> None:
        if not self._is_silent:
            self._is_silent = True
            log.warning("no engine answers what it is asked", chain=self._name)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask())
            group.create_task(self._listen())

    async def _listen(self) -> None:
        while True:
            try:
                async with aclosing(self._link.answered()) as answered:  # type: ignore[type-var]
                    async for _ in answered:
                        if self._waiting:
                            self._unasked.update(dict.fromkeys(self._waiting))
                            self._work.set()
            except (RetryableError, PermanentError):
                await asyncio.sleep(_LOOK_S)  # told by the follower

    async def _ask(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._unasked and (head := self._head()) is not None:
                keys = list(self._unasked)[:_PART]
                for key in keys:
                    del self._unasked[key]
                try:
                    answers = await self._link.ask(head, keys)
                except (RetryableError, PermanentError):
                    self._unasked.clear()
                    self._fall_silent()
                    await asyncio.sleep(_LOOK_S)
                    continue
                self._take(head.hash, dict(zip(keys, answers, strict=True)))

    def _take(self, looked_at: str, answers: Mapping[str, Answer | None]) -> None:
        now = self._clock()
        has_come = False
        hits = misses = 0
        for key, answer in answers.items():
            missed_at = self._missed.pop(key, None)
            if answer is None:
                misses += is_renewed(key) and missed_at != looked_at
                self._missed[key] = looked_at
            else:
                hits += is_renewed(key) and missed_at is None
                has_come = True
                self._kept[key] = _Kept(answer.number, answer.hash, now, answer.value)
                self._kept.move_to_end(key)
        for known in (self._kept, self._missed):
            while len(known) > _MAX_KEPT:
                known.popitem(last=False)
        self._metrics.cache_hits.labels("rates_shared").inc(hits)
        self._metrics.cache_misses.labels("rates_shared").inc(misses)
        if has_come:
            if self._is_silent:
                self._is_silent = False
                log.info("an engine answers again", chain=self._name)
            self._news.set()
            self._news.clear()
