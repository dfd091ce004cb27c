"""A position's own events: what went into it, what was taken out, what its pool paid for it. Pure sums.

All fees over a life follow from them without asking what of a payment was principal: whatever left the liquidity
can be paid once, so fees = collectable now + all that was paid - all that was withdrawn. An undone block takes its
events with it, by hash.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from ...domain.ids import BlockHash
from ..earning import Life, LifeEvent, LifeKind

__all__ = ["MAX_EVENTS", "NOTHING", "Event", "Lifetime", "Unpaid", "kept_event", "restored_event"]

# Events that are kept one by one, 250 bytes each. Whoever compounds each hour has older ones after two weeks: of
# those the sums stay, and what they were worth then is not told.
MAX_EVENTS: Final = 400
# The basis of an event that nobody could price.
NOTHING: Final = "none"
_KINDS: Final[tuple[LifeKind, ...]] = ("deposit", "withdrawal", "collect")
_NOTHING: Final = (0,) * 6


@dataclass(slots=True, eq=False)
class Event:
    """One event; amounts in raw units.

    `paid0/1` is what a collect really paid, `amount0/1` what the manager's event names: up to a few units more,
    which the position loses. Of the other kinds both are the same. Prices are US cents × 2^128 per raw unit.
    """

    kind: LifeKind
    number: int
    block_hash: BlockHash
    index: int
    amount0: int
    amount1: int
    paid0: int
    paid1: int
    timestamp: int | None = None
    cents0: int | None = None
    cents1: int | None = None
    basis: str | None = None

    @property
    def flow0(self) -> int:
        """Return what this adds to paid less withdrawn, token0."""
        return {"deposit": 0, "withdrawal": -self.amount0, "collect": self.paid0}[self.kind]

    @property
    def flow1(self) -> int:
        """Return what this adds to paid less withdrawn, token1."""
        return {"deposit": 0, "withdrawal": -self.amount1, "collect": self.paid1}[self.kind]


@dataclass(slots=True)
class Unpaid:
    """A position's past events with their transactions, while it is unknown what collects have paid."""

    events: list[Event]
    transactions: list[str]


@dataclass(slots=True, eq=False)
class Lifetime:
    """The events of one position, oldest first, and their sums.

    `is_known` says that none is missing. `net0/1` is all that was paid less all that was withdrawn, as far as it is
    known. `shift0/1` is the part of it that became known after the position was first seen: `net - shift` moves with
    what happens alone, so differences of it are right before the past is known, and over that moment.
    `version` grows with every change.
    """

    is_known: bool = False
    # Tuples: one for all positions that nothing happened to yet, and nothing for the garbage collector to walk.
    events: tuple[Event, ...] = ()
    # Six sums over the events that are no longer listed: deposited, withdrawn, collected.
    older: tuple[int, ...] = _NOTHING
    net0: int = 0
    net1: int = 0
    shift0: int = 0
    shift1: int = 0
    version: int = 0

    def add(self, event: Event) -> None:
        """Add the newest event."""
        self.events += (event,)
        self.net0 += event.flow0
        self.net1 += event.flow1
        self.version += 1

    def drop(self, blocks: Collection[BlockHash]) -> None:
        """Take back the events of blocks that left the chain."""
        gone = [event for event in self.events if event.block_hash in blocks]
        if gone:
            self.events = tuple(event for event in self.events if event.block_hash not in blocks)
            self.net0 -= sum(event.flow0 for event in gone)
            self.net1 -= sum(event.flow1 for event in gone)
            self.version += 1

    def complete(self, past: Iterable[Event]) -> None:
        """Take all events up to some block; those that were folded since are known already."""
        known = {(event.block_hash, event.index) for event in self.events}
        new = [event for event in past if (event.block_hash, event.index) not in known]
        for event in new:
            self.net0 += event.flow0
            self.net1 += event.flow1
            self.shift0 += event.flow0
            self.shift1 += event.flow1
        if new:
            self.events = tuple(sorted((*self.events, *new), key=lambda event: (event.number, event.index)))
        self.is_known = True
        self.version += 1

    def shorten(self, recent: Collection[BlockHash]) -> None:
        """Keep only the sums of the oldest events, once there are too many; `recent` blocks may still be undone."""
        if len(self.events) <= MAX_EVENTS:
            return
        count, sums = len(self.events) - MAX_EVENTS // 2, list(self.older)
        old = list(takewhile(lambda event: event.block_hash not in recent, self.events[:count]))
        for event in old:
            place = 2 * _KINDS.index(event.kind)
            sums[place] += event.paid0
            sums[place + 1] += event.paid1
        self.events, self.older = self.events[len(old) :], tuple(sums)
        self.version += 1

    def told(self) -> Life:
        """Return the life as a value; of each collect, principal is what was withdrawn and not yet paid."""
        sums = list(self.older)
        owed0, owed1 = max(sums[2] - sums[4], 0), max(sums[3] - sums[5], 0)
        events = []
        for event in self.events:
            place = 2 * _KINDS.index(event.kind)
            sums[place] += event.paid0
            sums[place + 1] += event.paid1
            fees0 = fees1 = 0
            if event.kind == "withdrawal":
                owed0, owed1 = owed0 + event.amount0, owed1 + event.amount1
            elif event.kind == "collect":
                fees0, fees1 = max(event.paid0 - owed0, 0), max(event.paid1 - owed1, 0)
                # By what the manager's event names: the position has lost the difference.
                owed0, owed1 = max(owed0 - event.amount0, 0), max(owed1 - event.amount1, 0)
            events.append(
                LifeEvent(
                    kind=event.kind, block_number=event.number, block_hash=event.block_hash, timestamp=event.timestamp,
                    amount0=event.paid0, amount1=event.paid1, fees0=fees0, fees1=fees1,
                    cents0=event.cents0, cents1=event.cents1, basis=event.basis,
                )
            )  # fmt: skip
        return Life(
            deposited0=sums[0], deposited1=sums[1], withdrawn0=sums[2], withdrawn1=sums[3],
            collected0=sums[4], collected1=sums[5], events=tuple(events), is_whole=not any(self.older),
        )  # fmt: skip


# --- over a restart -----------------------------------------------------------------------------------------------


def kept_event(event: Event) -> list[Any]:
    """Return an event as JSON: integers that may be large as text."""
    prices = [None if cents is None else str(cents) for cents in (event.cents0, event.cents1)]
    amounts = [str(amount) for amount in (event.amount0, event.amount1, event.paid0, event.paid1)]
    return [
        _KINDS.index(event.kind), event.number, event.block_hash, event.index, *amounts, event.timestamp, *prices,
        # What no node could tell, another one may.
        None if event.basis == NOTHING else event.basis,
    ]  # fmt: skip


def restored_event(fact: Any) -> Event:
    """Return the event that `kept_event` has written; TypeError, ValueError or IndexError where it is none."""
    kind, number, block_hash, index, amount0, amount1, paid0, paid1, timestamp, cents0, cents1, basis = fact
    return Event(
        kind=_KINDS[kind], number=int(number), block_hash=BlockHash(block_hash), index=int(index),
        amount0=int(amount0), amount1=int(amount1), paid0=int(paid0), paid1=int(paid1),
        timestamp=None if timestamp is None else int(timestamp),
        cents0=None if cents0 is None else int(cents0), cents1=None if cents1 is None else int(cents1), basis=basis,
    )  # fmt: skip
