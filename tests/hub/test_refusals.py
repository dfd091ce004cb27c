"""What can't be is found out once in a while, however many ask."""

from rtserver.domain.errors import ClientError
from rtserver.hub.refusals import Refusals
from rtserver.hub.stream import Stream

from .stage import Stage, channel

A = channel(1)
NO_POOL = ClientError("bad_channel", "no pool")
LATE = ClientError("load_timeout", "later")


def test_who_asks_again_is_told_at_once_and_costs_nothing(stage: Stage) -> None:
    client, told = stage.client(), list[Stream | ClientError]()
    client.subscribe(A, 1)
    stage.refuse(A, NO_POOL)
    error = client.read()[-1]
    assert (error["id"], error["code"]) == (1, "bad_channel")
    assert stage.hub.knows(A), "so it is on nobody's account"
    stage.hub.when_open(A, told.append)
    assert told == [NO_POOL]
    client.subscribe(A, 2)
    stage.hub.resync(client.session, A, 3)
    assert [(error["id"], error["code"]) for error in client.read()] == [(2, "bad_channel"), (3, "bad_channel")]
    assert stage.wanted == [A.name]
    stage.later(11)
    assert not stage.hub.knows(A)
    client.subscribe(A, 3)
    assert stage.wanted == [A.name, A.name]


def test_what_failed_this_time_is_tried_again(stage: Stage) -> None:
    client = stage.client()
    client.subscribe(A, 1)
    stage.refuse(A, LATE)
    client.read()
    client.subscribe(A, 2)
    assert stage.wanted == [A.name, A.name]


def test_as_many_are_remembered_as_there_is_room_for() -> None:
    refusals = Refusals()
    for number in range(20_000):
        refusals.note(str(number), NO_POOL, number * 1e-6)
    assert len(refusals) == 10_000
    assert refusals.of("19999", 0.1) is NO_POOL
    assert refusals.of("0", 0.1) is None
    refusals.note("late", NO_POOL, 60.0)
    assert len(refusals) == 1
