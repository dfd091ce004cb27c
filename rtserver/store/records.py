"""What is kept of a position's past, as values. Pure: who takes them and where they are written is not decided here."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..domain.chain import BlockRef
from ..domain.errors import RetryableError
from ..protocols.earning import Sample

__all__ = ["Bucket", "Record", "Retention", "Rewind", "Valued", "Vanished", "joined"]


class Vanished(RetryableError):
    """The database was begun anew since the chain was claimed: it has to be claimed again."""


@dataclass(frozen=True, slots=True)
class Record:
    """A position as it was at a block, and how much of the time since its record before it was in range.

    `timestamp` is the block's, in seconds. `price` is one token0 in token1, as shown. Of the last `covered_s`
    seconds it was in range for `active_s`; what was before is covered by an earlier record, or nobody looked.
    """

    protocol: str
    block: BlockRef
    timestamp: int
    sample: Sample
    price: str | None
    active_s: int
    covered_s: int


@dataclass(frozen=True, slots=True)
class Rewind:
    """Blocks over `number` left the chain; the oldest of them had this timestamp."""

    number: int
    since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Until when, in seconds of the chain's time, records are rolled up: minutes, hours; and days deleted."""

    minutes_until: int
    hours_until: int
    days_until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The last record of a part of a window, as it is shown, and the seconds that all records of it cover.

    `slot` counts the parts from 0; it is -1 of what was known when the window began. Amounts are decimal digits.
    `begins` is when what they cover begins, also before the window; the seconds are only of the window.
    """

    slot: int
    at: int
    begins: int
    block: int
    amount0: str
    amount1: str
    fees0: str | None
    fees1: str | None
    value_cents: str | None
    fees_cents: str | None
    price: str | None
    active_s: int
    covered_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Valued:
    """What a record tells of its pool's tokens: what was worth how much, at which price of one in the other."""

    timestamp: int
    value_cents: int
    amount0: int
    amount1: int
    sqrt_price_x96: int


def joined(buckets: Iterable[Bucket]) -> list[Bucket]:
    """Return buckets, oldest first, one a slot: with the newest values, and all seconds."""
    found: list[Bucket] = []
    for bucket in buckets:
        if found and found[-1].slot == bucket.slot:
            before = found.pop()
            active_s, covered_s = before.active_s + bucket.active_s, before.covered_s + bucket.covered_s
            found.append(replace(bucket, begins=before.begins, active_s=active_s, covered_s=covered_s))
        else:
            found.append(bucket)
    return found
