"""Takes one chain's records while the chain is followed: never while anything is unsettled, and little at a time.

`published` is called when a step is out and everything is settled: what has to be told of that very block is taken
there and then. All else waits its turn in `run`, which takes small parts as long as the state is at rest and goes on
after the next block otherwise. Decides nothing about where records go.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final, Protocol, TypeAlias

from ..domain.chain import Header, Reorged
from ..domain.ids import TokenId
from ..obs.metrics import Metrics
from ..protocols.earning import Sample
from ..store.records import Record, Rewind
from .backlog import Backlog
from .clocks import Clocks
from .rounds import Rounds

__all__ = ["REST_S", "Recorder", "Sampled"]

# A position: (protocol, token id).
Key: TypeAlias = tuple[str, TokenId]

# Positions a part, about 15 µs each: nothing else waits longer for it than for any client's message.
_PART: Final = 64
# Changes of liquidity that a block tells of at once; more of them are taken right after it.
_CHANGES: Final = 256
# Of a position that does not change, too, so that a crash leaves no more than that uncovered.
REST_S: Final = 900
# What an integer column holds; a chain's time beyond that is none.
_MAX_TIME: Final = 1 << 61


class Sampled(Protocol):
    """What is asked of a book of positions; see protocols.base."""

    def samples(self, token_ids: Iterable[TokenId]) -> list[Sample]:
        """Return what these positions are, as last evaluated; those that can't be told are left out."""

    def price_of(self, token_id: TokenId) -> str | None:
        """Return the price in a position's pool as last evaluated, None where it isn't known."""

    def take_resized(self) -> set[TokenId]:
        """Return the positions whose liquidity changed since this was last asked."""

    def take_turned(self) -> dict[TokenId, bool | None]:
        """Return whether positions are in range of which that changed, or that are new; None: tracked no more."""


class Recorder:
    """One chain's recorder.

    Args:
        name: The chain's name in metrics.
        books: Its books by kind.
        backlog: Takes the records.
        every_s: The pace, in seconds of the chain's time.
        is_at_rest: Returns whether everything is settled and published.
        metrics: Where records are counted.
    """

    def __init__(
        self,
        *,
        name: str,
        books: Mapping[str, Sampled],
        backlog: Backlog,
        every_s: int,
        is_at_rest: Callable[[], bool],
        metrics: Metrics,
    ) -> None:
        self._name = name
        self._books = books
        self._backlog = backlog
        self._every_s = every_s
        self._is_at_rest = is_at_rest
        self._metrics = metrics
        self._clocks: Clocks[Key] = Clocks()
        self._rounds: Rounds[Key] = Rounds(every_s, lambda: self._clocks.keys)
        # Whose turn it is, in order; each once.
        self._due: dict[Key, None] = {}
        self._news = asyncio.Event()
        self.head: Header | None = None

    def reorged(self, event: Reorged) -> None:
        """Forget what was recorded of blocks that left the chain."""
        if event.ancestor is None:
            self._clocks.restart()
            self._backlog.clear()
        elif event.dropped:
            self._clocks.rewind(event.ancestor.number)
            self._backlog.rewind(Rewind(event.ancestor.number, min(header.timestamp for header in event.dropped)))

    def published(self, head: Header) -> None:
        """Take what has to be told of this very block. Call it only while everything is settled at `head`."""
        if head.timestamp > _MAX_TIME or head.number > _MAX_TIME:
            return
        self.head = head
        started = time.perf_counter()
        turned = {(kind, token_id): is_active for kind, book in self._books.items()
                  for token_id, is_active in book.take_turned().items()}  # fmt: skip
        new, flipped = self._clocks.step(head.number, head.timestamp, turned)
        resized = [(kind, token_id) for kind, book in self._books.items() for token_id in book.take_resized()]
        self._take(resized[:_CHANGES], head, is_change=True)
        due = self._due
        due.update(dict.fromkeys(resized[_CHANGES:]))
        due.update(dict.fromkeys(new))
        # So a long record is of one state: whoever cuts it cuts it right.
        due.update(dict.fromkeys(key for key in flipped if self._clocks.age(key, head.timestamp) > self._every_s))
        due.update(dict.fromkeys(self._rounds.due(head.timestamp)))
        # On a chain that is never at rest for long these parts are all there is.
        self._take_part(head)
        self._metrics.history_take.labels(self._name).observe(time.perf_counter() - started)
        if due:
            self._news.set()

    async def run(self) -> None:
        """Take what is due, a part at a time, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._due and self.head is not None and self._is_at_rest():
                self._take_part(self.head)
                await asyncio.sleep(0)

    def _take_part(self, head: Header) -> None:
        part = list(islice(self._due, _PART))
        for key in part:
            del self._due[key]
        self._take(part, head, is_change=False)

    def _take(self, keys: Iterable[Key], head: Header, *, is_change: bool) -> None:
        by_kind: dict[str, list[TokenId]] = {}
        for kind, token_id in keys:
            by_kind.setdefault(kind, []).append(token_id)
        now, block, clocks = head.timestamp, head.ref, self._clocks
        for kind, token_ids in by_kind.items():
            book = self._books[kind]
            for sample in book.samples(token_ids):
                key = kind, sample.token_id
                mark = _mark(sample)
                if not is_change and clocks.is_unchanged(key, mark) and clocks.age(key, now) < REST_S:
                    continue
                active_s, covered_s = clocks.take(key, now, sample.is_active, mark)
                price = book.price_of(sample.token_id)
                self._backlog.add(Record(kind, block, now, sample, price, active_s, covered_s), is_change=is_change)

    def now(self, kind: str, token_id: TokenId) -> Record | None:
        """Return a record of a tracked position as it is now, without taking it; None while that can't be told."""
        if self.head is None or not self._is_at_rest():
            return None
        found = self._books[kind].samples([token_id])
        if not found:
            return None
        active_s, covered_s = self._clocks.seconds((kind, token_id), self.head.timestamp)
        price = self._books[kind].price_of(token_id)
        return Record(kind, self.head.ref, self.head.timestamp, found[0], price, active_s, covered_s)


def _mark(sample: Sample) -> int:
    """Return a number that is another one where anything about a position changed."""
    rewards = sample.rewards
    return hash(
        (
            sample.liquidity, sample.inside0, sample.inside1, sample.amount0, sample.amount1, sample.fees0,
            sample.fees1, sample.is_active,
            sample.earned0, sample.earned1, sample.sqrt_price_x96, sample.value_cents, sample.fees_cents,
            None if rewards is None else tuple(rewards.items()),
        )
    )  # fmt: skip
