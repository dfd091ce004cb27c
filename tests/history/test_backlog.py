"""The queue: bounded, in order with what has to be taken back, and nothing lost or doubled by a failure."""

from __future__ import annotations

import random

from store.records import KIND, record

from rtserver.domain.ids import TokenId
from rtserver.history.backlog import Backlog, Batch
from rtserver.store.records import Record, Rewind


def reach(backlog: Backlog) -> int | None:
    return backlog.reach


def numbers(batch: Batch) -> list[int]:
    return sorted(one.block.number for one in batch.records)


def test_the_oldest_of_the_usual_pace_go_first() -> None:
    backlog = Backlog(5)
    for number in range(4):
        backlog.add(record(number, number), is_change=False)
    for number in range(10, 14):
        backlog.add(record(number, number), is_change=True)
    assert (len(backlog), backlog.dropped) == (5, 3)
    batch = backlog.take(99)
    assert ([one.block.number for one in batch.usual], numbers(batch)) == ([3], [3, 10, 11, 12, 13])
    backlog.done()
    for number in range(7):
        backlog.add(record(number, number), is_change=True)
    assert backlog.dropped == 5
    assert numbers(backlog.take(99)) == [2, 3, 4, 5, 6]


def test_what_left_the_chain_is_not_written_and_is_taken_back() -> None:
    backlog = Backlog(99)
    for number in range(1, 6):
        backlog.add(record(number, 10 * number), is_change=number % 2 == 0)
    assert reach(backlog) is None
    backlog.rewind(Rewind(3, 40))
    backlog.add(record(4, 41, branch=1), is_change=False)
    assert reach(backlog) == 3
    # A second fork before the first was written: the deeper one holds.
    backlog.rewind(Rewind(2, 30))
    backlog.rewind(Rewind(4, 50))
    batch = backlog.take(99)
    assert batch.rewind == Rewind(2, 30)
    assert (numbers(batch), reach(backlog)) == ([1, 2], 2)
    backlog.done()
    assert reach(backlog) is None
    assert backlog.is_empty


def test_what_was_not_written_comes_back_but_for_what_left_meanwhile() -> None:
    backlog = Backlog(99)
    for number in range(1, 6):
        backlog.add(record(number, 10 * number), is_change=number == 5)
    backlog.rewind(Rewind(7, 80))
    batch = backlog.take(4)
    assert numbers(batch) == [1, 2, 3, 5]
    backlog.add(record(6, 60), is_change=False)
    backlog.rewind(Rewind(3, 40))
    assert [one.block.number for one in backlog.of(KIND, TokenId(7))] == [1, 2, 3]
    backlog.give_back()
    again = backlog.take(99)
    assert [one.block.number for one in again.records] == [1, 2, 3]
    assert again.rewind == Rewind(3, 40)


def test_giving_back_keeps_the_bound() -> None:
    backlog = Backlog(3)
    for number in range(3):
        backlog.add(record(number, number), is_change=False)
    backlog.take(3)
    for number in range(3, 6):
        backlog.add(record(number, number), is_change=False)
    backlog.give_back()
    assert (len(backlog), backlog.dropped) == (3, 3)
    assert numbers(backlog.take(9)) == [3, 4, 5]


def test_nothing_comes_back_after_all_was_forgotten() -> None:
    backlog = Backlog(9)
    backlog.add(record(1, 1), is_change=False)
    backlog.take(9)
    backlog.add(record(2, 2), is_change=True)
    backlog.rewind(Rewind(5, 5))
    backlog.clear()
    backlog.give_back()
    assert backlog.is_empty
    assert backlog.of(KIND, TokenId(7)) == []


def test_any_order_of_forks_and_failures_leaves_the_last_branch() -> None:
    for seed in range(300):
        randomly = random.Random(seed)
        backlog = Backlog(10_000)
        written: dict[tuple[int, str], Record] = {}
        chain: list[Record] = []
        flying: Batch | None = None
        branch = 0
        for _ in range(80):
            action = randomly.choice("aaaafwwd")
            if action == "a":
                one = record(len(chain) + 1, len(chain) + 1, branch=branch)
                chain.append(one)
                backlog.add(one, is_change=randomly.random() < 0.3)
            elif action == "f" and chain:
                depth = randomly.randint(1, len(chain))
                since = chain[-depth].timestamp
                del chain[-depth:]
                branch += 1
                backlog.rewind(Rewind(len(chain), since))
            elif action == "w" and flying is None:
                flying = backlog.take(randomly.randint(1, 20))
            elif action == "d" and flying is not None:
                is_lost = randomly.random() < 0.4
                # A write that failed may have been written all the same.
                if not is_lost or randomly.random() < 0.5:
                    apply(flying, written)
                if is_lost:
                    backlog.give_back()
                else:
                    backlog.done()
                flying = None
        if flying is not None:
            backlog.give_back()
        while not backlog.is_empty:
            apply(backlog.take(7), written)
            backlog.done()
        assert {one.block.hash for one in written.values()} == {one.block.hash for one in chain}, seed


def apply(batch: Batch, written: dict[tuple[int, str], Record]) -> None:
    """Do what the database does."""
    if batch.rewind is not None:
        for key in [key for key in written if key[0] > batch.rewind.number]:
            del written[key]
    for one in batch.records:
        written[one.block.number, one.block.hash] = one


def test_a_spare_queue_loses_nothing_with_what_has_no_room() -> None:
    backlog = Backlog(3)
    backlog.is_spare = True
    for number in range(5):
        backlog.add(record(number, 10 * number, covered=10), is_change=number == 4)
    assert (len(backlog), backlog.dropped, backlog.oldest) == (3, 0, 10)
    backlog.forget_before(30)
    assert backlog.oldest == 20
    backlog.is_spare = False
    for number in range(5, 8):
        backlog.add(record(number, 10 * number), is_change=False)
    assert backlog.dropped == 2


def test_records_go_on_where_another_process_ended() -> None:
    """Also those that are taken later: no second is told twice, and none that the other one had not told is lost."""
    backlog = Backlog(99)
    for number in range(1, 5):
        backlog.add(record(number, 60 * number, covered=60, active=30), is_change=False)
        backlog.add(record(number, 60 * number, covered=60, token_id=8), is_change=False)
    # Of 7 the other one is behind, of 9 it is ahead of all that was taken here.
    backlog.follow({(KIND, TokenId(7)): (160, 2), (KIND, TokenId(9)): (400, 6)})
    assert [(one.timestamp, one.covered_s, one.active_s) for one in backlog.of(KIND, TokenId(7))] == [
        (180, 20, 10), (240, 60, 30),
    ]  # fmt: skip
    assert len(backlog.of(KIND, TokenId(8))) == 4
    for number in range(5, 9):
        backlog.add(record(number, 61 * number, covered=60, active=60, token_id=9), is_change=False)
        backlog.add(record(number, 61 * number, covered=60, active=60), is_change=False)
    assert [(one.timestamp, one.covered_s) for one in backlog.of(KIND, TokenId(9))] == [(427, 27), (488, 60)]
    assert [one.covered_s for one in backlog.of(KIND, TokenId(7))] == [20, 60, 60, 60, 60, 60]


def test_where_another_process_ended_may_leave_the_chain() -> None:
    backlog = Backlog(99)
    backlog.follow({(KIND, TokenId(7)): (400, 6), (KIND, TokenId(8)): (300, 4)})
    backlog.rewind(Rewind(4, 350))
    for token_id in (7, 8):
        backlog.add(record(5, 360, covered=100, token_id=token_id), is_change=False)
    assert [one.covered_s for token_id in (7, 8) for one in backlog.of(KIND, TokenId(token_id))] == [10, 60]
