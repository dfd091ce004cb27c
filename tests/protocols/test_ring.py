"""Samples of a week in a bounded number of bytes: windows are what they would be if all samples had been kept."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from rtserver.protocols.earning import WINDOWS_S, Window
from rtserver.protocols.uniswap_v3.ring import PoolRing, Ring

WEEK_S = WINDOWS_S[-1]


def _window(windows: tuple[Window, ...], length_s: int) -> Window:
    return next(window for window in windows if window.length_s == length_s)


@pytest.mark.parametrize("seed", range(5))
def test_windows_of_two_weeks_of_samples(seed: int) -> None:
    random = Random(seed)
    ring = Ring()
    now, counter0, counter1, cents = 1_700_000_000, 10**20, 0, 10_000
    seen: list[tuple[int, int, int, int]] = []
    while now < 1_700_000_000 + 2 * WEEK_S:
        ring.add(now, counter0, counter1, cents)
        seen.append((now, counter0, counter1, cents))
        now += random.choice((60, 300, 300, 310, 900))
        counter0 += random.randint(0, 10**18)
        counter1 += random.choice((0, 0, 10**6))
        cents = max(cents + random.randint(-500, 500), 0)
    assert len(ring) <= 72
    by_time = {time: (c0, c1) for time, c0, c1, _ in seen}
    for window in ring.windows(now, counter0, counter1, cents):
        start = now - window.covered_s
        assert (window.fees0, window.fees1) == (counter0 - by_time[start][0], counter1 - by_time[start][1])
        # As long as it should be, and longer by no more than samples are apart at that age.
        slack = {3_600: 1_200, 86_400: 5_400 + 900, WEEK_S: 28_800 + 900}[window.length_s]
        assert window.length_s <= window.covered_s <= window.length_s + slack
        path = [one for one in seen if one[0] >= start] + [(now, counter0, counter1, cents)]
        twice = sum((b[0] - a[0]) * (a[3] + b[3]) for a, b in pairwise(path))
        assert window.mean_cents == (twice + window.covered_s) // (2 * window.covered_s)


def test_what_was_unpriced_for_a_while_has_no_mean_until_the_window_is_past_it() -> None:
    ring = Ring()
    for minute in range(0, 200, 5):
        ring.add(minute * 60, minute, 0, None if minute == 100 else 500)
    windows = ring.windows(200 * 60, 200, 0, 500)
    assert _window(windows, 3_600).mean_cents == 500
    assert _window(windows, 86_400).mean_cents is None
    assert _window(windows, 86_400).fees0 == 200


def test_a_change_in_a_straight_line_and_a_step() -> None:
    ring = Ring()
    ring.add(0, 0, 0, 100)
    ring.add(1_000, 0, 0, 100)
    ring.add(1_000, 0, 0, 300)  # liquidity was added
    (window, *_) = ring.windows(2_000, 0, 0, 300)
    assert window.mean_cents == 200


def test_undone_samples_are_gone_and_windows_begin_before_them() -> None:
    ring, pool = Ring(), PoolRing()
    for minute in range(0, 60, 5):
        ring.add(minute * 60, minute, minute, 1_000)
        pool.add(minute * 60, minute, (1 << 256) - 60 + minute)
    ring.rewind(30 * 60)
    pool.cut(30 * 60)
    (window, *_) = ring.windows(31 * 60, 100, 31, 1_000)
    assert (window.covered_s, window.fees0, window.mean_cents) == (31 * 60, 100, 1_000)
    (grown, *_) = pool.windows(31 * 60, 31, 5)
    assert (grown.growth0, grown.growth1) == (31, 65)
    ring.rewind(0)
    assert ring.is_empty()
    assert ring.windows(60, 0, 0, 0) == ()


def test_absurd_numbers_are_carried_or_left_out() -> None:
    ring = Ring()
    ring.add(0, 1 << 128, -(1 << 128), 1 << 100)
    ring.add(400, 1 << 140, 0, None)
    (window, *_) = ring.windows(500, 1 << 141, 0, 1 << 100)
    assert (window.fees0, window.mean_cents) == ((1 << 141) - (1 << 128), None)


@pytest.mark.parametrize("seed", range(5))
def test_a_ring_that_is_lengthened_is_the_one_that_began_earlier(seed: int) -> None:
    random = Random(seed)
    whole, late, older = Ring(), Ring(), []
    now, counter0, counter1, cents = 1_700_000_000, 10**20, 0, 10_000
    for index in range(400):
        sample = now, counter0, counter1, cents if random.random() < 0.99 else None
        whole.add(*sample)
        if index < 150:
            older.append(sample)
        else:
            late.add(*sample)
        # Sometimes a step: two samples of one moment.
        now += random.choice((0, 10, 300, 900))
        counter0, counter1 = counter0 + random.randint(0, 10**18), counter1 + random.choice((0, 10**6))
        cents = max(cents + random.randint(-500, 500), 0)
    late.prepend(older)
    for _ in range(3):
        expected, found = (ring.windows(now, counter0, counter1, cents) for ring in (whole, late))
        for one, other in zip(expected, found, strict=True):
            # Which samples are kept may differ where the two parts meet: then a window begins a little elsewhere.
            assert abs(one.covered_s - other.covered_s) <= 28_800
            if one.covered_s == other.covered_s:
                assert one == other
        now += 300
        whole.add(now, counter0, counter1, cents)
        late.add(now, counter0, counter1, cents)
    assert late.oldest == whole.oldest


def test_what_is_older_than_nothing_changes_nothing() -> None:
    ring, pool = Ring(), PoolRing()
    ring.add(1_000, 5, 6, 100)
    pool.add(1_000, 5, 6)
    before = ring.windows(2_000, 7, 8, 100)
    ring.prepend([(1_000, 1, 1, 1), (1_500, 2, 2, 2)])
    pool.prepend([(1_000, 1, 1)])
    assert (ring.windows(2_000, 7, 8, 100), len(pool)) == (before, 1)
    pool.prepend([(100, 1, 2)])
    assert [(window.covered_s, window.growth0) for window in pool.windows(2_000, 7, 8)] == [(1_900, 6)] * 3
