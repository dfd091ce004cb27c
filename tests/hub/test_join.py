"""Joining without a gap: hot channels in one step, cold ones when their state has been read."""

import pytest

from rtserver.domain.errors import ClientError
from rtserver.hub.limits import Limits
from rtserver.hub.stream import PART_BYTES

from .replica import checksum_of
from .stage import CHAIN, Stage, channel

A, B, C = channel(1), channel(2), channel(3)


def test_a_client_is_greeted_with_limits_and_heads(stage: Stage) -> None:
    (welcome,) = stage.client("abc").read()
    assert (welcome["type"], welcome["session"], welcome["protocol"]) == ("welcome", "abc", "rtserver.v1")
    assert welcome["limits"]["channels"] == 256
    assert welcome["heartbeatMs"] == 15_000
    assert welcome["heads"]["1"]["number"] == 100
    assert welcome["heads"]["2"]["number"] == 7


def test_a_hot_join_gets_snapshot_then_subscribed_in_one_step(stage: Stage) -> None:
    stage.open(A)
    stage.block(A)
    client = stage.client()
    client.read()
    client.subscribe(A, 7)
    snapshot, subscribed = client.read()
    assert (snapshot["type"], snapshot["id"], snapshot["seq"]) == ("snapshot", 7, 1)
    assert snapshot["block"]["number"] == 101
    assert snapshot["checksum"] == checksum_of(stage.truth[A.name])
    assert subscribed == {
        "type": "subscribed",
        "id": 7,
        "channel": A.name,
        "how": "snapshot",
        "epoch": snapshot["epoch"],
        "seq": 1,
        "cursor": snapshot["cursor"],
    }
    stage.block(A)
    assert [message["type"] for message in client.read()] == ["block"]
    stage.assert_same(client)
    assert stage.wanted == []


def test_a_cold_join_misses_nothing_that_was_published_meanwhile(stage: Stage) -> None:
    stage.open(A)
    client = stage.client()
    client.subscribe(A, 1)
    client.subscribe(B, 2)
    assert stage.wanted == [B.name]
    stage.block(A)
    # The channel opens with the very block that also changes another one.
    stage.block(A, opened=B)
    stage.block(A, B, key="0")
    client.read()
    assert client.replica.reply(2)["how"] == "snapshot"
    assert client.replica.places[B.name][1] == 1
    stage.assert_same(client)


def test_equal_cold_loads_are_shared(stage: Stage) -> None:
    clients = [stage.client(str(index)) for index in range(5)]
    for client in clients:
        client.subscribe(A)
    assert stage.wanted == [A.name]
    stage.open(A)
    stage.assert_same(*clients)
    assert all(A.name in client.session.joined for client in clients)


def test_every_request_of_a_cold_channel_is_answered(stage: Stage) -> None:
    client = stage.client()
    client.subscribe(A, 1)
    client.subscribe(A, 2)
    stage.open(A)
    client.read()
    ids = [m["id"] for m in client.replica.others if m["type"] == "subscribed"]
    assert ids == [1, 2]


def test_leaving_before_a_cold_channel_opens(stage: Stage) -> None:
    stays, leaves, closes = (stage.client(str(index)) for index in range(3))
    for client in (stays, leaves, closes):
        client.subscribe(A)
    stage.hub.unsubscribe(leaves.session, A, 9)
    stage.hub.close(closes.session)
    stage.open(A)
    stage.assert_same(stays)
    leaves.read()
    assert leaves.replica.reply(9)["type"] == "unsubscribed"
    assert A.name not in leaves.replica.states
    closes.read()
    assert A.name not in closes.replica.states


def test_a_refused_channel_is_answered_to_all_who_asked(stage: Stage) -> None:
    one, two = stage.client("1"), stage.client("2")
    one.subscribe(A, 5)
    two.subscribe(A, 6)
    heard: list[object] = []
    stage.hub.when_open(A, heard.append)
    error = ClientError("bad_channel", "not a pool")
    stage.refuse(A, error)
    one.read()
    two.read()
    assert one.replica.reply(5)["code"] == "bad_channel"
    assert two.replica.reply(6)["message"] == "not a pool"
    assert heard == [error]
    # Asking again asks the engine again, after a while.
    stage.later(11)
    one.subscribe(A, 7)
    assert stage.wanted == [A.name, A.name]


def test_a_reader_without_a_socket_gets_the_stream_once(stage: Stage) -> None:
    heard: list[object] = []
    stage.hub.when_open(A, heard.append)
    stage.open(A)
    stage.block(A)
    stream = stage.hub.peek(A)
    assert heard == [stream]


def test_unsubscribe_ends_a_channel_and_is_never_an_error(stage: Stage) -> None:
    stage.open(A, B)
    client = stage.client()
    client.subscribe(A, 1)
    client.subscribe(B, 2)
    stage.hub.unsubscribe(client.session, A, 3)
    stage.hub.unsubscribe(client.session, C, 4)
    client.read()
    stage.block(A, B)
    (block,) = client.read()
    assert [change["channel"] for change in block["changes"]] == [B.name]
    assert client.replica.reply(3)["channel"] == A.name
    assert client.replica.reply(4)["type"] == "unsubscribed"


def test_the_channel_limit_counts_joined_and_waiting() -> None:
    stage = Stage(Limits(channels=2))
    stage.start()
    stage.open(A)
    client = stage.client()
    client.subscribe(A)
    client.subscribe(B)
    with pytest.raises(ClientError, match="2 channels") as caught:
        client.subscribe(C)
    assert caught.value.code == "limit"
    # A channel that is held already costs nothing more, and one that was left makes room.
    client.subscribe(A)
    client.subscribe(B)
    stage.hub.unsubscribe(client.session, B, None)
    client.subscribe(C)


def test_a_resync_sends_a_snapshot_or_joins(stage: Stage) -> None:
    stage.open(A, B)
    client = stage.client()
    client.subscribe(A, 1)
    stage.block(A)
    client.read()
    stage.hub.resync(client.session, A, 2)
    stage.hub.resync(client.session, B, 3)
    messages = client.read()
    assert [m["type"] for m in messages] == ["snapshot", "snapshot", "subscribed"]
    assert messages[0]["seq"] == 1
    stage.assert_same(client)


def test_a_large_state_comes_in_parts_under_one_checksum(stage: Stage) -> None:
    stage.truth[A.name] = {}
    stage.open(A, size=8000)
    client = stage.client()
    client.subscribe(A, 1)
    client.read()
    parts = [len(frame) for frame in client.frames if b'"snapshot"' in frame[:40]]
    assert len(parts) > 1
    assert all(size < PART_BYTES + 1000 for size in parts)
    stage.assert_same(client)


def test_an_empty_channel_is_a_state_too(stage: Stage) -> None:
    stage.open(A, size=0)
    client = stage.client()
    client.subscribe(A, 1)
    (snapshot,) = [m for m in client.read() if m["type"] == "snapshot"]
    assert (snapshot["state"], snapshot["checksum"], snapshot["parts"]) == ({}, 0, 1)


def test_the_newest_head_is_known_with_its_age(stage: Stage) -> None:
    assert stage.hub.head(CHAIN) == stage.head[CHAIN]
    stage.now += 1.5
    assert stage.hub.head_age_ms(CHAIN) == 1500
    stage.open(A)  # not a new head: the age goes on
    assert stage.hub.head_age_ms(CHAIN) == 1500
    stage.block()
    assert stage.hub.head_age_ms(CHAIN) == 0
