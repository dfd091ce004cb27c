"""Records on their way to the disk: a bounded queue, and what has to be taken back before they are written. Pure.

When it is full, the oldest record of the usual pace goes, and only without any the oldest of changed liquidity.

Where another process wrote before, its records come first: of this one's what is older is left out, and what covers
some of the same seconds is cut. So seconds add up over both.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from ..domain.ids import TokenId
from ..store.records import Record, Rewind

__all__ = ["Backlog", "Batch"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written at once: first the rewind, then the records."""

    rewind: Rewind | None
    usual: list[Record]
    changes: list[Record]

    @property
    def records(self) -> list[Record]:
        """Return all records."""
        return self.changes + self.usual


class Backlog:
    """One chain's queue.

    Args:
        bound: How many records may wait.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._usual: deque[Record] = deque()
        self._changes: deque[Record] = deque()
        self._rewind: Rewind | None = None
        # What is being written: out of the queue, and not yet known to be in the database.
        self._taken: Batch | None = None
        # Timestamp and height of what another process wrote last of positions that no record was added of since.
        self._ends: dict[tuple[str, TokenId], tuple[int, int]] = {}
        # Whether another one writes the same: then nothing is lost with what has no room.
        self.is_spare = False
        self.dropped = 0

    def __len__(self) -> int:
        """Return how many records wait."""
        return len(self._usual) + len(self._changes)

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to write."""
        return not self._usual and not self._changes and self._rewind is None

    @property
    def is_settled(self) -> bool:
        """Return whether there is nothing to write, nor anything being written."""
        return self.is_empty and self._taken is None

    def add(self, record: Record, *, is_change: bool) -> None:
        """Add a record; `is_change` where it was taken because the liquidity changed."""
        rest = self.rest(record)
        if rest is not None:
            self._ends.pop(_key(record), None)
            (self._changes if is_change else self._usual).append(rest)
            self._trim()

    def _trim(self) -> None:
        while len(self) > self._bound:
            (self._usual or self._changes).popleft()
            self.dropped += not self.is_spare

    def rewind(self, rewind: Rewind) -> None:
        """Forget the records of blocks that left the chain, and take back what was written of them."""
        self._usual, self._changes = (
            deque(record for record in records if record.block.number <= rewind.number)
            for records in (self._usual, self._changes)
        )
        self._rewind = _joined(self._rewind, rewind)
        for key, (at, block) in self._ends.items():
            if block > rewind.number:
                # Where it ends then only the database knows; no later than this.
                self._ends[key] = min(at, rewind.since), rewind.number

    def clear(self) -> None:
        """Forget everything: it isn't known what of it is still on the chain."""
        self._usual.clear()
        self._changes.clear()
        self._rewind = self._taken = None
        self._ends.clear()

    # --- where another one writes ---------------------------------------------------------------------

    @property
    def oldest(self) -> int | None:
        """Return from when on what waits covers time, in seconds; None where nothing waits."""
        return min((record.timestamp - record.covered_s for record in chain(self._usual, self._changes)), default=None)

    def forget_before(self, timestamp: int) -> None:
        """Forget what is older than a time."""
        for records in (self._usual, self._changes):
            while records and records[0].timestamp < timestamp:
                records.popleft()

    def forget_rewind(self) -> None:
        """Take nothing back of what was written until now."""
        self._rewind = None

    def follow(self, ends: Mapping[tuple[str, TokenId], tuple[int, int]]) -> None:
        """Go on after another process: where its records of each position end, by timestamp and height."""
        self._ends = dict(ends)
        self._usual, self._changes = (
            deque(rest for record in records if (rest := self.rest(record)) is not None)
            for records in (self._usual, self._changes)
        )
        for record in chain(self._usual, self._changes):
            self._ends.pop(_key(record), None)

    def rest(self, record: Record) -> Record | None:
        """Return what a new record tells that another process has not told; None where that is nothing."""
        end = self._ends.get(_key(record)) if self._ends else None
        return record if end is None else _after(record, end)

    # --- writing --------------------------------------------------------------------------------------

    def take(self, limit: int) -> Batch:
        """Return the next batch, of the changes first; `done` or `give_back` has to follow."""
        changes = [self._changes.popleft() for _ in range(min(limit, len(self._changes)))]
        usual = [self._usual.popleft() for _ in range(min(limit - len(changes), len(self._usual)))]
        self._taken = Batch(self._rewind, usual, changes)
        self._rewind = None
        return self._taken

    def done(self) -> None:
        """Note that the batch is in the database."""
        self._taken = None

    def give_back(self) -> None:
        """Put the batch back: it was not written."""
        batch, self._taken = self._taken, None
        if batch is None:
            return
        newer = self._rewind
        alive = (lambda record: True) if newer is None else (lambda record: record.block.number <= newer.number)
        self._changes.extendleft(filter(alive, reversed(batch.changes)))
        self._usual.extendleft(filter(alive, reversed(batch.usual)))
        self._rewind = _joined(batch.rewind, newer)
        self._trim()

    # --- reading --------------------------------------------------------------------------------------

    def of(self, protocol: str, token_id: TokenId) -> list[Record]:
        """Return a position's records that may not be in the database yet, oldest first."""
        found = [record for record in self._all() if record.sample.token_id == token_id and record.protocol == protocol]
        return sorted(found, key=lambda record: record.block.number)

    def _all(self) -> Iterator[Record]:
        newer = self._rewind
        if self._taken is not None:
            for record in self._taken.records:
                if newer is None or record.block.number <= newer.number:
                    yield record
        yield from chain(self._usual, self._changes)

    @property
    def reach(self) -> int | None:
        """Return the height over which the database may hold what left the chain; None where it does not."""
        rewinds = (self._rewind, None if self._taken is None else self._taken.rewind)
        return min((rewind.number for rewind in rewinds if rewind is not None), default=None)


def _key(record: Record) -> tuple[str, TokenId]:
    return record.protocol, record.sample.token_id


def _after(record: Record, end: tuple[int, int]) -> Record | None:
    """Return what a record tells after another one that ends then.

    A long record is of one state and is cut right (see recorder); of a short one the share in range stays.
    """
    if (record.timestamp, record.block.number) <= end:
        return None
    covered_s = min(record.covered_s, record.timestamp - end[0])
    if covered_s == record.covered_s:
        return record
    return replace(record, covered_s=covered_s, active_s=record.active_s * covered_s // record.covered_s)


def _joined(first: Rewind | None, second: Rewind | None) -> Rewind | None:
    """Return the one rewind that takes back what both do."""
    if first is None or second is None:
        return first or second
    return Rewind(min(first.number, second.number), min(first.since, second.since))
