"""The block of a time is found in a few looks, whatever the chain's pace has been."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.chain import Header
from rtserver.domain.ids import BlockHash
from rtserver.engine.earlier import header_at

# Stretches of a chain: (blocks, seconds between two of them).
STRETCHES = st.lists(st.tuples(st.integers(1, 5_000), st.integers(0, 60)), min_size=1, max_size=4)


class Chain:
    """Headers by height, from block 1 on; below `kept` they are not told."""

    def __init__(self, time: Callable[[int], int], height: int, kept: int = 1) -> None:
        self.time, self.head, self.kept = time, height, kept
        self.looks = 0

    def header(self, number: int) -> Header:
        return Header(
            number=number, hash=BlockHash(hex(number)), parent_hash=BlockHash(hex(number - 1)),
            timestamp=self.time(number), logs_bloom=0,
        )  # fmt: skip

    def at(self, ago: int) -> Header | None:
        head = self.header(self.head)
        return asyncio.run(header_at(self, head.timestamp - ago, head))

    async def headers(self, first: int, last: int) -> list[Header]:
        self.looks += 1
        assert first == last >= 1
        return [self.header(first)] if first >= self.kept else []


@given(stretches=STRETCHES, ago=st.integers(1, 700_000), kept=st.sampled_from([1, 1, 1, 3_000]))
def test_a_block_is_never_later_than_asked_unless_it_is_the_first(
    stretches: list[tuple[int, int]], ago: int, kept: int
) -> None:
    paces = [pace for blocks, pace in stretches for _ in range(blocks)]
    times = [0, *accumulate(paces, initial=1_700_000_000)]
    chain = Chain(times.__getitem__, len(times) - 1, kept)
    found = chain.at(ago)
    assert chain.looks <= 8
    if found is not None:
        assert found.timestamp <= times[-1] - ago or found.number == 1


@given(pace=st.integers(1, 60), jitter=st.integers(0, 3), age=st.sampled_from([3_600, 86_400, 604_800]))
def test_on_a_steady_chain_it_is_near(pace: int, jitter: int, age: int) -> None:
    height = 20_000_000
    chain = Chain(lambda number: 1_500_000_000 + number * pace + number % (jitter + 1), height)
    found = chain.at(age)
    assert found is not None
    late_s = chain.time(height) - age - found.timestamp
    assert 0 <= late_s <= max(age // 50, pace + jitter)
    assert chain.looks <= 6
