"""A laggard gets nothing more until it has drained, then one change or a snapshot, or it is sent away."""

from rtserver.hub.session import LAG_BYTES, SLOW_S
from rtserver.hub.stream import RING_ENTRIES
from rtserver.wire.codes import CloseCode

from .stage import OTHER_CHAIN, Stage, channel

A, B = channel(1), channel(2)
ELSEWHERE = channel(1, OTHER_CHAIN)


def test_a_laggard_gets_nothing_and_others_everything(stage: Stage) -> None:
    stage.open(A, B)
    slow, quick = stage.client("slow"), stage.client("quick")
    for client in (slow, quick):
        client.subscribe(A)
        client.subscribe(B)
        client.read()
    slow.unsent = LAG_BYTES + 1
    for number in range(5):
        stage.block(A, value=str(number))
        stage.later(0.1)
    assert slow.read() == []
    assert len(quick.read()) == 5
    slow.unsent = 1
    stage.later(0.1)
    assert slow.read() == [], "drained means empty"
    slow.unsent = 0
    stage.later(0.1)
    (block,) = slow.read()
    (change,) = block["changes"]
    assert (change["prev"], change["seq"], change["patch"]["0"]["value"]) == (0, 5, "4")
    assert "checksum" in change
    stage.block(A, B)
    stage.assert_same(slow, quick)
    assert slow.codes == []


def test_a_full_buffer_below_the_limit_is_no_lag(stage: Stage) -> None:
    stage.open(A)
    client = stage.client()
    client.subscribe(A)
    client.read()
    client.unsent = LAG_BYTES
    stage.block(A)
    assert len(client.read()) == 1


def test_catching_up_covers_every_chain(stage: Stage) -> None:
    stage.open(A, B, ELSEWHERE)
    client = stage.client()
    for one in (A, B, ELSEWHERE):
        client.subscribe(one)
    client.read()
    client.unsent = LAG_BYTES + 1
    stage.block(A, B)
    stage.block(ELSEWHERE)
    client.unsent = 0
    stage.later(0.1)
    assert sorted(block["chainId"] for block in client.read()) == [1, 2]
    stage.assert_same(client)


def test_a_rollback_while_lagging_is_in_the_merged_change(stage: Stage) -> None:
    stage.open(A, B)
    client = stage.client()
    client.subscribe(A)
    client.subscribe(B)
    stage.block(A)
    client.read()
    client.unsent = LAG_BYTES + 1
    stage.block(A)
    head = stage.reorg(2, A)
    client.unsent = 0
    stage.later(0.1)
    (block,) = client.read()
    assert block["block"]["hash"] == head.hash
    assert len(block["changes"]) == 2
    stage.assert_same(client)


def test_a_laggard_that_lost_its_place_gets_a_snapshot(stage: Stage) -> None:
    stage.open(A, B)
    client = stage.client()
    client.subscribe(A)
    client.subscribe(B)
    client.read()
    client.unsent = LAG_BYTES + 1
    for _ in range(RING_ENTRIES + 1):
        stage.block(A)
    stage.block(B)
    client.unsent = 0
    stage.later(0.1)
    types = [message["type"] for message in client.read()]
    assert types == ["snapshot", "block"]
    stage.block(A, B)
    stage.assert_same(client)


def test_joining_and_leaving_while_lagging(stage: Stage) -> None:
    stage.open(A, B)
    client = stage.client()
    client.subscribe(A)
    client.read()
    client.unsent = LAG_BYTES + 1
    stage.block(A)
    client.subscribe(B, 2)
    stage.hub.unsubscribe(client.session, A, 3)
    stage.block(A, B)
    client.unsent = 0
    stage.later(0.1)
    client.read()
    stage.block(A, B)
    stage.assert_same(client)
    assert list(client.session.joined) == [B.name]


def test_too_slow_is_sent_away(stage: Stage) -> None:
    stage.open(A)
    client = stage.client()
    client.subscribe(A)
    client.unsent = LAG_BYTES + 1
    stage.block(A)
    stage.later(SLOW_S)
    assert client.codes == []
    stage.later(0.1)
    stage.later(0.1)
    assert client.codes == [CloseCode.SLOW]
    assert client.codes[0].value == 4008
    assert client.codes[0].reconnect


def test_the_newest_state_is_enough_in_mode_latest(stage: Stage) -> None:
    stage.open(A, B)
    client = stage.client()
    client.subscribe(A, latest=True)
    client.subscribe(B)
    client.read()
    client.unsent = 1
    stage.block(A, B, value="held")
    (block,) = client.read()
    assert [change["channel"] for change in block["changes"]] == [B.name]
    stage.block(A, value="newest")
    assert client.read() == []
    client.unsent = 0
    stage.later(0.1)
    (block,) = client.read()
    (change,) = block["changes"]
    assert (change["prev"], change["seq"], change["patch"]["0"]["value"]) == (0, 2, "newest")
    stage.block(A, B)
    stage.assert_same(client)


def test_mode_latest_through_lag_and_rollback(stage: Stage) -> None:
    stage.open(A)
    client = stage.client()
    client.subscribe(A, latest=True)
    stage.block(A)
    client.read()
    client.unsent = 1
    stage.block(A)
    stage.reorg(1, A)
    client.unsent = LAG_BYTES + 1
    stage.block(A)
    client.unsent = 0
    stage.later(0.1)
    stage.assert_same(client)
    client.unsent = 1
    stage.block(A)
    client.unsent = 0
    # What was held goes out before anything newer does.
    stage.block(A)
    stage.later(0.1)
    stage.assert_same(client)
