"""Each position once a round, evenly spread over the chain's time."""

from __future__ import annotations

from collections import Counter

import pytest

from rtserver.history.rounds import Rounds


@pytest.mark.parametrize("block_s", [1, 2, 7, 12, 59])
@pytest.mark.parametrize("count", [1, 5, 100, 1000])
def test_everyone_once_a_round_and_no_block_pays_for_all(block_s: int, count: int) -> None:
    rounds: Rounds[int] = Rounds(60, lambda: range(count))
    asked: Counter[int] = Counter()
    most = 0
    seconds = 60 * 50
    for now in range(1000, 1000 + seconds + 1, block_s):
        found = rounds.due(now)
        assert len(found) == len(set(found))
        most = max(most, len(found))
        asked.update(found)
    assert set(asked.values()) <= {48, 49, 50}
    assert len(asked) == count
    assert most <= count * block_s // 60 + 1


def test_blocks_slower_than_a_round() -> None:
    rounds: Rounds[int] = Rounds(60, lambda: range(3))
    assert rounds.due(0) == []
    for now in (100, 300, 301, 500):
        assert rounds.due(now) == ([] if now == 301 else [0, 1, 2])


def test_who_comes_is_in_the_next_round_and_time_may_go_back() -> None:
    everyone = [1]
    rounds: Rounds[int] = Rounds(10, lambda: everyone)
    rounds.due(1000)
    everyone = [1, 2]
    assert rounds.due(1010) == [1]
    assert rounds.due(1019) == [1]
    assert rounds.due(1020) == [2]
    # A chain that began anew, long ago.
    assert rounds.due(5) == []
    assert rounds.due(15) == [1, 2]
