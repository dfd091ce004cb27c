"""Garbage that was in use when it was new is found, too; and nothing that is used is touched."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rtserver.obs.collector import COLLECTOR, Collector


class Ring:
    """A cycle: dead, it is left to the collector."""

    def __init__(self) -> None:
        self.itself = self
        self.weight = [[] for _ in range(10)]  # type: ignore[var-annotated]


@contextmanager
def by_hand() -> Iterator[Collector]:
    """Only rounds that the test makes collect anything."""
    collector = Collector(every_s=3600.0)
    with collector:
        gc.disable()
        try:
            yield collector
        finally:
            gc.enable()


async def test_young_garbage_goes_with_the_next_round() -> None:
    with by_hand() as collector:
        rings = [Ring() for _ in range(100)]
        refs = [weakref.ref(ring) for ring in rings]
        del rings
        assert all(ref() is not None for ref in refs)
        collector.round()
        assert not any(ref() is not None for ref in refs)


@pytest.mark.parametrize("rounds", [1, 13, 70])
async def test_what_was_long_in_use_is_found_in_the_end(rounds: int) -> None:
    """However many rounds it outlived: garbage is never more than a share of what is used."""
    with by_hand() as collector:
        most = 0
        alive: weakref.WeakSet[Ring] = weakref.WeakSet()
        for _ in range(40):
            held = [Ring() for _ in range(200)]
            for ring in held:
                alive.add(ring)
            for _ in range(rounds):
                collector.round()
            del held, ring
            most = max(most, len(alive))
        for _ in range(60):
            collector.round()
        assert len(alive) < 2_000
        assert most < 4_000  # of 8,000 that there were


async def test_a_small_process_is_walked_whole_now_and_then() -> None:
    with by_hand() as collector:
        ring = Ring()
        ref = weakref.ref(ring)
        for _ in range(250):
            collector.round()
        del ring
        assert ref() is not None
        for _ in range(50):
            collector.round()
        assert ref() is None


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone gives back what lies between")
async def test_what_a_peak_left_between_pieces_in_use_goes_back_to_the_kernel() -> None:
    with by_hand() as collector:
        # Too large for Python's own allocator, too small to be mapped: C's.
        pieces = [bytes(2_000) for _ in range(40_000)]
        del pieces[::2]
        peak = resident()
        # One in eight pages keeps a piece, so that no free end is given back by itself.
        del pieces[::2]
        pieces = pieces[::4]
        assert resident() > peak - 8_000_000
        for _ in range(300):
            collector.round()
        assert resident() < peak - 20_000_000
        assert len(pieces) == 2_500


async def test_it_runs_by_the_clock_and_leaves_the_process_as_it_was() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with Collector(every_s=0.001):
        assert gc.get_threshold() == COLLECTOR
        assert gc.get_freeze_count() > frozen
        gc.disable()
        try:
            ring = Ring()
            ref = weakref.ref(ring)
            del ring
            async with asyncio.timeout(20):
                while ref() is not None:
                    await asyncio.sleep(0)
        finally:
            gc.enable()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == frozen


async def test_one_round_walks_only_what_is_new() -> None:
    """A server's state is not walked in each round: that would be a stall."""
    with by_hand() as collector:
        collector.round()
        walked: list[int] = []

        def note(phase: str, told: dict[str, int]) -> None:
            if phase == "start":
                walked.append(told["generation"])

        gc.callbacks.append(note)
        try:
            for _ in range(120):
                collector.round()
        finally:
            gc.callbacks.remove(note)
        assert walked.count(2) == 0
        assert walked.count(1) == 10
        assert walked.count(0) == 110
