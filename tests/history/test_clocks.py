"""Seconds in range: from every block's own word, undone with its block, and the same whatever path led there."""

from __future__ import annotations

import random

from rtserver.history.clocks import Clocks


def test_a_second_belongs_to_the_state_at_the_block_before_it() -> None:
    clocks: Clocks[str] = Clocks()
    assert clocks.step(1, 100, {"a": True, "b": False}) == (["a", "b"], [])
    # Before the first record nothing is covered.
    assert clocks.seconds("a", 150) == (0, 0)
    assert clocks.take("a", 100, True, 1) == (0, 0)
    assert clocks.take("b", 100, False, 1) == (0, 0)
    assert clocks.step(2, 110, {}) == ([], [])
    assert clocks.step(3, 130, {"a": False, "b": True}) == ([], ["a", "b"])
    assert clocks.seconds("a", 150) == (30, 50)
    assert clocks.take("b", 150, True, 2) == (20, 50)
    assert clocks.seconds("b", 160) == (10, 10)
    assert clocks.age("b", 160) == 10
    assert clocks.is_unchanged("b", 2) and not clocks.is_unchanged("b", 1) and not clocks.is_unchanged("c", 1)


def test_told_again_is_no_turn() -> None:
    clocks: Clocks[str] = Clocks()
    clocks.step(1, 0, {"a": True})
    clocks.take("a", 0, True, 1)
    assert clocks.step(2, 10, {"a": True}) == ([], [])
    assert clocks.seconds("a", 20) == (20, 20)


def test_who_is_tracked_no_more_has_no_clock() -> None:
    clocks: Clocks[str] = Clocks()
    clocks.step(1, 0, {"a": True})
    clocks.take("a", 0, True, 1)
    clocks.step(2, 10, {"a": None, "never": None})
    assert not clocks.keys
    # What nobody looked at is not covered.
    assert clocks.step(3, 50, {"a": True}) == (["a"], [])
    assert clocks.take("a", 60, True, 1) == (0, 0)


def test_a_turn_in_a_block_that_left_the_chain() -> None:
    clocks: Clocks[str] = Clocks()
    clocks.step(1, 0, {"a": True})
    clocks.take("a", 0, True, 7)
    clocks.step(2, 10, {"a": False})
    assert clocks.take("a", 10, False, 8) == (10, 10)
    clocks.step(3, 20, {})
    clocks.rewind(1)
    assert clocks.is_unchanged("a", 7)
    # The book tells what differs from what it told last: nothing, so the position is out of range here, too.
    clocks.step(2, 12, {})
    assert clocks.seconds("a", 20) == (12, 20)
    clocks.rewind(1)
    clocks.step(2, 13, {"a": True})
    assert clocks.seconds("a", 20) == (20, 20)


def test_born_and_buried_in_blocks_that_left_the_chain() -> None:
    clocks: Clocks[str] = Clocks()
    clocks.step(1, 0, {"old": True})
    clocks.take("old", 0, True, 1)
    clocks.step(2, 10, {"new": True, "old": None})
    clocks.take("new", 10, True, 1)
    clocks.rewind(1)
    # The new one is unmade, the old one is back.
    clocks.step(2, 11, {"new": None, "old": True})
    assert set(clocks.keys) == {"old"}
    assert clocks.seconds("old", 20) == (20, 20)


def test_deeper_than_is_remembered_begins_again() -> None:
    clocks: Clocks[str] = Clocks()
    for number in range(1, 30):
        clocks.step(number, number, {"a": True} if number == 1 else {})
        clocks.take("a", number, True, number)
    clocks.rewind(3)
    new, _ = clocks.step(4, 40, {})
    assert new == ["a"]
    assert clocks.take("a", 41, True, 1) == (0, 0)
    clocks.restart()
    assert not clocks.keys
    assert clocks.step(5, 50, {}) == (["a"], [])


def test_time_that_goes_back_covers_nothing() -> None:
    clocks: Clocks[str] = Clocks()
    clocks.step(1, 1000, {"a": True})
    clocks.take("a", 1000, True, 1)
    clocks.step(2, 10, {"a": False})
    assert clocks.seconds("a", 20) == (0, 0)
    assert clocks.age("a", 20) == 0


def test_any_path_leads_to_the_clocks_of_the_straight_one() -> None:
    """Random forks, up to as deep as is remembered, against clocks that saw the last branch alone."""
    for seed in range(200):
        randomly = random.Random(seed)
        # Of each block: its time, who is in range, and whose record is taken.
        chain: list[tuple[int, dict[str, bool], set[str]]] = []
        forked: Clocks[str] = Clocks()
        told: dict[str, bool] = {}
        peak = 0
        for _ in range(60):
            peak = max(peak, len(chain))
            if randomly.random() < 0.25 and (deepest := len(chain) - max(peak - 7, 0)):
                del chain[-randomly.randint(1, deepest) :]
                forked.rewind(len(chain))
            at = (chain[-1][0] if chain else 0) + randomly.randint(0, 5)
            states = {name: randomly.random() < 0.5 for name in "abc"}
            if chain:
                states = {name: randomly.choice([is_active, chain[-1][1][name]]) for name, is_active in states.items()}
            taken = {name for name in "abc" if randomly.random() < 0.3}
            chain.append((at, states, taken))
            forked.step(len(chain), at, {name: state for name, state in states.items() if told.get(name) != state})
            told = states
            for name in sorted(taken):
                forked.take(name, at, states[name], 0)
        straight: Clocks[str] = Clocks()
        for number, (at, states, taken) in enumerate(chain, 1):
            straight.step(number, at, states)
            for name in taken:
                straight.take(name, at, states[name], 0)
        for name in "abc":
            assert forked.seconds(name, at + 3) == straight.seconds(name, at + 3), (seed, name)
