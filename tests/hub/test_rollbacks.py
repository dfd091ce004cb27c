"""A change that spans a reorganisation says so, however it came to span it: a lag, mode "latest", a resume."""

from collections.abc import Callable

import pytest

from rtserver.domain.chain import BlockRef, Rollback
from rtserver.domain.ids import BlockHash
from rtserver.hub.rollbacks import MAX_DROPPED, merged_rollback
from rtserver.hub.session import LAG_BYTES

from .replica import Json
from .stage import CHAIN, Client, Stage, channel

A, B = channel(1), channel(2)


def _lag(stage: Stage, client: Client, do: Callable[[], None]) -> list[Json]:
    client.unsent = LAG_BYTES + 1
    do()
    client.unsent = 0
    stage.later(0.1)
    return client.read()


def _hold_back(stage: Stage, client: Client, do: Callable[[], None]) -> list[Json]:
    client.subscribe(A, latest=True)
    client.read()
    client.unsent = 1
    do()
    assert client.read() == [], "what is held back is told when it is sent"
    client.unsent = 0
    stage.later(0.1)
    return client.read()


def _resume(stage: Stage, client: Client, do: Callable[[], None]) -> list[Json]:
    client.read()
    cursor = client.replica.cursors[A.name]
    stage.hub.unsubscribe(client.session, A, None)
    client.read()
    do()
    client.subscribe(A, 9, cursor)
    return [message for message in client.read() if message["type"] != "subscribed"]


@pytest.fixture
def client(stage: Stage) -> Client:
    """Return a client of A, at a block with others before it."""
    stage.open(A, B)
    for _ in range(5):
        stage.block(A)
    client = stage.client()
    client.subscribe(A)
    client.read()
    return client


@pytest.mark.parametrize("way", [_lag, _hold_back, _resume])
def test_a_merged_change_tells_the_reorganisation_that_it_spans(
    stage: Stage, client: Client, way: Callable[[Stage, Client, Callable[[], None]], list[Json]]
) -> None:
    head = stage.head[CHAIN]

    def reorganise() -> None:
        stage.block(A)
        stage.reorg(2, A)
        stage.block(A)

    (block,) = way(stage, client, reorganise)
    assert block["rollback"]["to"]["number"] == head.number - 1
    assert head.hash in block["rollback"]["dropped"]
    assert len(block["rollback"]["dropped"]) == 2
    stage.assert_same(client)


def test_several_are_told_as_one_to_the_deepest_place(stage: Stage, client: Client) -> None:
    head = stage.head[CHAIN]

    def reorganise() -> None:
        stage.reorg(3, A)
        stage.block(A)
        stage.reorg(1, A)

    (block,) = _lag(stage, client, reorganise)
    assert block["rollback"]["to"]["number"] == head.number - 3
    dropped = block["rollback"]["dropped"]
    assert len(dropped) == len(set(dropped)) == 4
    stage.assert_same(client)


def test_what_was_told_before_is_not_told_again(stage: Stage, client: Client) -> None:
    stage.reorg(1, A)
    client.read()

    def go_on() -> None:
        stage.block(A)

    (block,) = _lag(stage, client, go_on)
    assert "rollback" not in block


@pytest.mark.parametrize("way", [_lag, _hold_back, _resume])
def test_one_that_went_back_too_far_to_know_begins_an_epoch(
    stage: Stage, client: Client, way: Callable[[Stage, Client, Callable[[], None]], list[Json]]
) -> None:
    client.read()
    before = client.replica.cursors[A.name].partition(".")[0]

    def lose_the_chain() -> None:
        stage.reorg(1, A)
        stage.lose_chain(A)
        stage.reorg(1, A)

    messages = way(stage, client, lose_the_chain)
    assert [message["type"] for message in messages] == ["snapshot"]
    assert messages[0]["epoch"] != before
    stage.assert_same(client)


def test_who_listens_when_the_chain_turned_too_deep_gets_one_snapshot_a_channel(stage: Stage, client: Client) -> None:
    client.subscribe(B)
    idle = stage.client()
    client.read()
    idle.read()
    stage.lose_chain(A)
    messages = client.read()
    assert sorted((message["type"], message["channel"]) for message in messages) == [
        ("snapshot", A.name),
        ("snapshot", B.name),
    ]
    assert idle.read() == []
    stage.assert_same(client)
    stage.block(A, B)
    (block,) = client.read()
    assert [change["prev"] for change in block["changes"]] == [message["seq"] for message in messages]
    stage.assert_same(client)


def test_more_than_a_frame_should_hold_is_a_snapshot(stage: Stage, client: Client) -> None:
    def reorganise() -> None:
        for _ in range(MAX_DROPPED // 64 + 1):
            for _ in range(64):
                stage.block()
            stage.reorg(64, A)

    (message,) = _lag(stage, client, reorganise)
    assert message["type"] == "snapshot"
    stage.assert_same(client)


def test_merging_keeps_each_block_once() -> None:
    def one(number: int, *dropped: str) -> Rollback:
        to = BlockRef(number=number, hash=BlockHash(f"to {number}"))
        return Rollback(to=to, dropped=tuple(map(BlockHash, dropped)))

    first, second = one(5, "a", "b"), one(3, "b", "c")
    assert merged_rollback([]) is None
    assert merged_rollback([first, first]) is first
    merged = merged_rollback([first, second])
    assert merged == Rollback(to=second.to, dropped=(*first.dropped, BlockHash("c")))
