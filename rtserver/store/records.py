"""What is kept of a position's past, as values. Pure: who takes them and where they are written is not decided here."""

from dataclasses import dataclass

from ..domain.chain import BlockRef
from ..protocols.earning import Sample

__all__ = ["Bucket", "Record", "Retention", "Rewind"]


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
    """

    slot: int
    at: int
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
