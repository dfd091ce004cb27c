"""Points of a window: what did not change is filled in, gaps stay gaps, and seconds add up."""

from __future__ import annotations

import itertools
import random

from store.records import record

from rtserver.history.windows import Window, bucket_of, merged, points_of, recent_of
from rtserver.store.records import Bucket

WINDOW = Window(start=1000, end=1600, step=60)


def buckets(*records: tuple[int, int, int]) -> list[Bucket]:
    """Make buckets of (at, in range, covered)."""
    return [
        bucket_of(recent_of(record(number, at, active=active, covered=covered)), WINDOW)
        for number, (at, active, covered) in enumerate(records, 1)
    ]


def seen(found: list[Bucket]) -> list[tuple[object, object, object]]:
    points, _, _ = points_of(found, WINDOW)
    return [(point["timestamp"], point["block"], point["inRangeShare"]) for point in points]


def test_nothing_known() -> None:
    assert points_of([], WINDOW) == ([], 0, 0)


def test_the_last_of_each_part() -> None:
    found = buckets((1010, 5, 10), (1060, 25, 50), (1061, 1, 1), (1600, 0, 0))
    assert seen(found) == [(1060, 2, "0.5"), (1061, 3, "1"), (1600, 4, None)]
    assert points_of(found, WINDOW)[1:] == (31, 61)


def test_what_did_not_change_is_filled_in() -> None:
    found = buckets((1010, 0, 0), (1190, 90, 180), (1400, 0, 100))
    # The last one begins after a gap: nobody knows what was then.
    assert seen(found) == [(1010, 1, None), (1120, 1, "0.5"), (1180, 1, "0.5"), (1190, 2, "0.5"), (1400, 3, "0")]


def test_what_was_before_the_window_fills_its_beginning() -> None:
    (first,) = buckets((1100, 300, 300))
    assert (first.begins, first.active_s, first.covered_s) == (800, 100, 100)
    before = Bucket(
        slot=-1, at=800, begins=800, block=0, amount0="1", amount1="2", fees0=None, fees1=None, value_cents=None,
        fees_cents=None, price=None, active_s=0, covered_s=0,
    )  # fmt: skip
    assert seen([before, first]) == [(1060, 0, "1"), (1100, 1, "1")]
    assert seen([before]) == []
    older = Bucket(**{name: getattr(before, name) for name in Bucket.__slots__} | {"at": 700})
    assert seen([older, first]) == [(1100, 1, "1")]


def test_a_point() -> None:
    (point,) = points_of(buckets((1010, 0, 0)), WINDOW)[0]
    assert point == {
        "timestamp": 1010, "block": 1, "valueUSD": "0.01", "fees0": "1", "fees1": None, "feesUSD": None,
        "amount0": str(2**127), "amount1": "5", "price": "1.5", "inRangeShare": None,
    }  # fmt: skip


def test_what_one_alone_recorded_stays_as_it_is() -> None:
    found = buckets((1010, 0, 0), (1190, 90, 180), (1400, 0, 100))
    assert merged([[], found, []]) == found
    assert merged([]) == merged([[]]) == []


def test_no_second_of_several_records_counts_twice() -> None:
    """Each has recorded a part of the time without a gap; together they cover what any of them does."""
    for seed in range(200):
        randomly = random.Random(seed)
        lists, seconds = [], set()
        for _ in range(randomly.randrange(1, 4)):
            times = sorted(randomly.sample(range(1001, 1601), randomly.randrange(1, 12)))
            seconds |= set(range(times[0], times[-1]))
            lists.append(
                buckets((times[0], 0, 0), *((one, one - last, one - last) for last, one in itertools.pairwise(times)))
            )
        found = merged(lists)
        assert [one.at for one in found] == sorted(one.at for one in found)
        points, active_s, covered_s = points_of(found, WINDOW)
        assert active_s == covered_s == len(seconds), seed
        assert points[-1]["timestamp"] == max(one.at for one in found)
