"""A window of a position's past as points, evenly spaced at most. Pure.

A position that did not change has no records: what is between two records that follow each other without a gap is
filled with the earlier one. Over a gap nothing is filled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

import msgspec

from ..domain.diff import JsonObject
from ..domain.text import cents_text, decimal_text
from ..store.records import Bucket, Record, joined

__all__ = ["Recent", "Window", "bucket_of", "merged", "points_of", "recent_of", "share_text"]

# Digits of a share that are shown: a hundredth of a per cent.
_SHARE_DIGITS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window in seconds of the chain's time: after `start`, until `end`, in parts of `step`."""

    start: int
    end: int
    step: int

    def slot(self, at: int) -> int:
        """Return the part that a time in the window is in."""
        return (at - self.start - 1) // self.step


class Recent(msgspec.Struct, frozen=True, array_like=True):
    """A record that is not in the database yet, as far as it is shown; it crosses between processes.

    Amounts are decimal digits. See `Record` for the rest.
    """

    block: int
    timestamp: int
    amount0: str
    amount1: str
    fees0: str | None
    fees1: str | None
    value_cents: str | None
    fees_cents: str | None
    price: str | None
    active_s: int
    covered_s: int


def recent_of(record: Record) -> Recent:
    """Return a record as it is shown."""
    sample = record.sample
    return Recent(
        block=record.block.number,
        timestamp=record.timestamp,
        amount0=str(sample.amount0),
        amount1=str(sample.amount1),
        fees0=_text(sample.fees0),
        fees1=_text(sample.fees1),
        value_cents=_text(sample.value_cents),
        fees_cents=_text(sample.fees_cents),
        price=record.price,
        active_s=record.active_s,
        covered_s=record.covered_s,
    )


def bucket_of(recent: Recent, window: Window) -> Bucket:
    """Return a record that is not in the database yet as it would be read from there."""
    covered_s, active_s = recent.covered_s, recent.active_s
    since_start = recent.timestamp - window.start
    if covered_s > since_start:
        active_s, covered_s = active_s * since_start // covered_s, since_start
    return Bucket(
        slot=window.slot(recent.timestamp),
        at=recent.timestamp,
        begins=recent.timestamp - recent.covered_s,
        block=recent.block,
        amount0=recent.amount0,
        amount1=recent.amount1,
        fees0=recent.fees0,
        fees1=recent.fees1,
        value_cents=recent.value_cents,
        fees_cents=recent.fees_cents,
        price=recent.price,
        active_s=active_s,
        covered_s=covered_s,
    )


def merged(lists: Sequence[Sequence[Bucket]]) -> list[Bucket]:
    """Return, oldest first, what several have recorded of one position, each oldest first and of the same chain.

    No second counts twice: of what covers the same time the later one is cut, at its share in range. Of a bucket with
    gaps in it, the seconds are taken for its last ones.
    """
    told = [buckets for buckets in lists if buckets]
    if len(told) < 2:
        return list(told[0]) if told else []
    found: list[Bucket] = []
    # What is covered so far, in parts that don't touch.
    parts: list[tuple[int, int]] = []
    for bucket in sorted(chain(*told), key=lambda bucket: (bucket.at, bucket.block)):
        since, covered_s = bucket.at - bucket.covered_s, bucket.covered_s
        while parts and parts[-1][1] >= since:
            begins, ends = parts.pop()
            covered_s -= ends - max(begins, since)
            since = min(begins, since)
        parts.append((since, bucket.at))
        if covered_s < bucket.covered_s:
            bucket = replace(bucket, covered_s=covered_s, active_s=bucket.active_s * covered_s // bucket.covered_s)
        found.append(bucket)
    return found


def points_of(buckets: Iterable[Bucket], window: Window) -> tuple[list[JsonObject], int, int]:
    """Return the points, oldest first, and the seconds of the window in range and covered.

    Args:
        buckets: Records of the window, oldest first, several in a part or none; before them the last one before it.
        window: The window.
    """
    points: list[JsonObject] = []
    active_s = covered_s = 0
    last: Bucket | None = None
    for bucket in joined(buckets):
        active_s += bucket.active_s
        covered_s += bucket.covered_s
        share = _share(bucket)
        if last is not None and bucket.begins <= last.at:
            between = range(last.slot + 1, bucket.slot)
            points += [_point(last, window.start + (slot + 1) * window.step, share) for slot in between]
        if bucket.slot >= 0:
            points.append(_point(bucket, bucket.at, share))
        last = bucket
    return points, active_s, covered_s


def _point(bucket: Bucket, timestamp: int, share: str | None) -> JsonObject:
    return {
        "timestamp": timestamp,
        "block": bucket.block,
        "valueUSD": _dollars(bucket.value_cents),
        "fees0": bucket.fees0,
        "fees1": bucket.fees1,
        "feesUSD": _dollars(bucket.fees_cents),
        "amount0": bucket.amount0,
        "amount1": bucket.amount1,
        "price": bucket.price,
        "inRangeShare": share,
    }


def share_text(active_s: int, covered_s: int) -> str | None:
    """Return a share of seconds as a decimal up to 1, rounded down; None of no seconds."""
    if not covered_s:
        return None
    return decimal_text(active_s * 10**_SHARE_DIGITS // covered_s, -_SHARE_DIGITS)


def _share(bucket: Bucket) -> str | None:
    return share_text(bucket.active_s, bucket.covered_s)


def _dollars(cents: str | None) -> str | None:
    return None if cents is None else cents_text(int(cents))


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
