"""Checkpoints while the chain is followed: taken between two blocks, written by someone else.

`published` is called when a step is out and everything is settled: what changed since the last checkpoint is
collected there and then, in one event-loop step, so it is of one block. `run` writes it. There is one slot:
while a checkpoint is being written, or has to wait, no other is taken, and what changes meanwhile is in the next
one. So a slow, full or dead disk costs the follower nothing, and a bounded amount of memory.

Of several engines on one database the one in charge keeps the chain. Its first checkpoint in a turn is whole.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from ..domain.chain import BlockRef, Header
from ..domain.errors import PermanentError, RetryableError
from ..domain.ids import ChainId
from ..obs.metrics import Metrics
from ..protocols.base import Book
from ..store.values import ALONE, CHANNELS, Changes, Fact, KeptStream
from .core import EngineCore

__all__ = ["Keeper", "Saver"]

log = structlog.get_logger(__name__)

# The longest pause after failures: a full disk is looked at once a minute.
_PAUSE_MAX_S: Final = 60.0


class Saver(Protocol):
    """Where checkpoints go; see store.store."""

    async def save(self, chain_id: ChainId, identity: str, changes: Changes) -> None:
        """Write a checkpoint, all or nothing."""


class Keeper:
    """Keeps one chain.

    Args:
        chain_id: The chain.
        name: Its name in logs and metrics.
        identity: What the facts depend on.
        core: The engine.
        books: Its books by kind.
        window: Returns the newest blocks of the chain as it is followed, oldest first.
        is_at_rest: Returns whether everything is settled and published.
        saver: Takes the checkpoints.
        every_s: The pace.
        metrics: Where checkpoints are counted.
        charge: Returns what proves that this process is in charge, None while it is not: then nothing is kept. One that
            shares its database with no other is always in charge.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        chain_id: ChainId,
        name: str,
        identity: str,
        core: EngineCore,
        books: Mapping[str, Book],
        window: Callable[[], Sequence[Header]],
        is_at_rest: Callable[[], bool],
        saver: Saver,
        every_s: float,
        metrics: Metrics,
        charge: Callable[[], str | None] = lambda: ALONE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chain_id = chain_id
        self._name = name
        self._identity = identity
        self._core = core
        self._books = books
        self._window = window
        self._is_at_rest = is_at_rest
        self._saver = saver
        self._every_s = every_s
        self._metrics = metrics
        self._charge = charge
        self._clock = clock
        self._channels: set[str] = set()
        # The first write replaces whatever is there; so does the first one in a turn, and after a failure.
        self._is_whole = True
        # The turn in which was taken last, and the one that was found to be over.
        self._turn: str | None = None
        self._lost: str | None = None
        self._slot: Changes | None = None
        self._news = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._next_at = 0.0
        # What was published last, and whether that was too early to be taken.
        self._head: Header | None = None
        self._is_due = False
        self._failures = 0
        self._is_over = False

    def published(self, head: Header) -> None:
        """Take a checkpoint if one is due. Call it only while everything is settled at `head`.

        Whoever gets in charge takes the first with its next step: until then what another one kept is as good.
        """
        if self._is_over:
            return
        self._head = head
        if self._charge() != self._turn:
            # What could not be written in an earlier turn is no reason to wait in this one.
            self._failures, self._next_at = 0, 0.0
        if self._slot is None and self._clock() >= self._next_at:
            self._fill(head)
        else:
            self._is_due = True
            self._news.set()

    def _fill(self, head: Header) -> None:
        self._slot = self._take(head, {})
        if self._slot is not None:
            self._is_due = False
            self._emptied.clear()
            self._news.set()

    def _take(self, head: Header, streams: Mapping[str, KeptStream]) -> Changes | None:
        charge = self._charge()
        if charge is None or charge == self._lost:
            return None
        window: list[BlockRef] = []
        for block in self._window():
            window.append(block.ref)
            if block.hash == head.hash:
                break
        else:
            # The follower is on another branch already; the engine hears of it next.
            return None
        started = time.perf_counter()
        if charge != self._turn:
            # Others have written since.
            self._is_whole, self._turn = True, charge
        facts: list[tuple[str, Mapping[str, Fact | None]]] = [(CHANNELS, self._changed_channels())]
        facts += [(kind, book.keep(whole=self._is_whole)) for kind, book in self._books.items()]
        changes = Changes(is_whole=self._is_whole, window=tuple(window), facts=facts, streams=streams, charge=charge)
        self._is_whole = False
        self._metrics.store_take.labels(self._name).observe(time.perf_counter() - started)
        return changes

    def _changed_channels(self) -> dict[str, Fact | None]:
        known = set() if self._is_whole else self._channels
        now = set(self._core.channels)
        changed: dict[str, Fact | None] = dict.fromkeys(now - known, 1)
        changed.update(dict.fromkeys(known - now))
        self._channels = now
        return changed

    async def run(self) -> None:
        """Write what is in the slot, until the chain is someone else's."""
        while not self._is_over:
            await self._news.wait()
            self._news.clear()
            if self._slot is None:
                # Too early when it was published, and nothing was published since: a quiet chain.
                await asyncio.sleep(max(self._next_at - self._clock(), 0.0))
                if self._slot is None and self._is_due and self._head is not None and self._is_at_rest():
                    self._fill(self._head)
            if self._slot is not None:
                await self._write(self._slot)
                self._slot = None
                self._emptied.set()
                if self._is_due:
                    self._news.set()

    async def _write(self, changes: Changes) -> None:
        started = time.perf_counter()
        try:
            await self._saver.save(self._chain_id, self._identity, changes)
        except RetryableError as error:
            # What was to be written is lost, so the next one begins from nothing.
            self._is_whole = True
            self._failures += 1
            pause_s = min(self._every_s * 2**self._failures, max(_PAUSE_MAX_S, self._every_s))
            self._next_at = self._clock() + pause_s
            self._metrics.store_errors.labels(self._name).inc()
            if self._failures & (self._failures - 1) == 0:
                log.warning("checkpoint not written", chain=self._name, error=str(error), failures=self._failures)
        except PermanentError as error:
            if changes.charge == ALONE:
                self.stop(str(error))
            else:
                self._lost = changes.charge
                log.warning("this chain is not kept in this turn any more", chain=self._name, reason=str(error))
        else:
            self._failures = 0
            self._next_at = self._clock() + self._every_s
            self._metrics.store_write.labels(self._name).observe(time.perf_counter() - started)
            self._metrics.store_rows.labels(self._name).inc(sum(len(facts) for _, facts in changes.facts))
            self._metrics.store_head.labels(self._name).set(changes.window[-1].number)

    def stop(self, reason: str) -> None:
        """Keep nothing from now on."""
        self._is_over = True
        log.warning("this chain is not kept any more", chain=self._name, reason=reason)

    async def finish(self, head: Header, streams: Mapping[str, KeptStream]) -> None:
        """Write a last checkpoint, with the streams as they will stay. Nothing may be published after this began.

        Call it only while everything is settled at `head`; limit its time from outside.
        """
        await self._emptied.wait()
        if self._is_over:
            return
        # Whatever is written after it would take the streams away.
        self._is_over, self._is_due = True, False
        changes = self._take(head, streams)
        if changes is not None:
            await self._write(changes)
