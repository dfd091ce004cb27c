"""Heartbeats and pongs, cold loads that take too long, channels that nobody watches, and the end."""

import pytest

from rtserver.domain.ids import ChainId
from rtserver.hub import openings
from rtserver.protocols.channels import Channel
from rtserver.wire.codes import CloseCode

from .replica import checksum_of
from .stage import Stage, channel

A = channel(1)
UNHEARD = channel(1, ChainId(99))


def test_an_idle_client_hears_a_heartbeat(stage: Stage) -> None:
    stage.open(A)
    client = stage.client()
    client.subscribe(A)
    stage.block(A)
    client.read()
    stage.later(14)
    assert client.read() == []
    stage.later(2)
    (heartbeat,) = client.read()
    assert heartbeat["type"] == "heartbeat"
    assert heartbeat["time"] == 42
    assert heartbeat["seqs"] == {A.name: 1}
    assert heartbeat["heads"]["1"]["ageMs"] == 16_000
    assert heartbeat["heads"]["1"]["hash"] == stage.head[A.chain_id].hash


def test_a_heartbeat_proves_quiet_channels(stage: Stage) -> None:
    held, quiet = channel(2), channel(3)
    stage.open(A, held, quiet, size=3)
    client = stage.client()
    client.subscribe(A)
    client.subscribe(held, latest=True)
    client.subscribe(quiet)
    stage.block(A)
    client.read()
    client.unsent = 1
    stage.block(held)
    stage.later(16)
    (heartbeat,) = client.read()
    # What is held back is not what the client has: it is proved when it is sent.
    assert heartbeat["checksums"] == {one.name: checksum_of(stage.truth[one.name]) for one in (A, quiet)}
    assert heartbeat["seqs"][held.name] == 0


def test_checksums_of_many_channels_are_spread_over_heartbeats(stage: Stage) -> None:
    # The last one is larger than all that is summed in one look.
    channels = [channel(number) for number in range(1, 9)]
    for number, one in enumerate(channels):
        stage.open(one, size=3000 if number == 7 else 300)
    clients = [stage.client(str(number)) for number in range(8)]
    for one, client in zip(channels, clients, strict=True):
        client.subscribe(one)
        for key in range(len(stage.truth[one.name])):
            stage.block(one, key=str(key))
        while not _unsummed(stage, one):
            stage.block(one)
    left = {one.name: _unsummed(stage, one) for one in channels}
    for _ in range(8):
        for client in clients:
            client.read()
            client.session.awaiting_pong_since = None
        stage.later(16)
        proved = {name for client in clients for beat in client.read() for name in beat.get("checksums", ())}
        counts = [left.pop(name) for name in proved & left.keys()]
        assert sum(counts) - max(counts) <= 1000
        if not left:
            return
    raise AssertionError(f"never proved: {left}")


def _unsummed(stage: Stage, one: Channel) -> int:
    stream = stage.hub.peek(one)
    assert stream is not None
    return stream.unsummed()


def test_a_busy_client_needs_none(stage: Stage) -> None:
    stage.open(A)
    client = stage.client()
    client.subscribe(A)
    for _ in range(4):
        stage.later(10)
        stage.block(A)
    assert [m["type"] for m in client.read()].count("heartbeat") == 0


def test_no_pong_ends_a_session_once(stage: Stage) -> None:
    client = stage.client()
    stage.later(16)
    stage.later(9)
    assert client.codes == []
    stage.later(2)
    stage.later(2)
    assert client.codes == [CloseCode.NO_PONG]
    assert client.codes[0].value == 4012


def test_a_pong_keeps_it(stage: Stage) -> None:
    client = stage.client()
    for _ in range(5):
        stage.later(16)
        client.session.awaiting_pong_since = None
        stage.later(5)
    assert client.codes == []
    assert [m["type"] for m in client.read()].count("heartbeat") == 5


def test_a_cold_load_has_a_limit(stage: Stage) -> None:
    client = stage.client()
    heard: list[object] = []
    client.subscribe(A, 3)
    stage.hub.when_open(A, heard.append)
    stage.later(19)
    client.read()
    stage.later(2)
    client.read()
    reply = client.replica.reply(3)
    assert reply["code"] == "load_timeout"
    assert reply["retryAfterMs"] > 0
    assert len(heard) == 1
    assert stage.unwanted == [A.name]
    # It can be asked for again, and what the engine may still deliver of the old wish harms nobody.
    client.subscribe(A, 4)
    stage.open(A)
    client.read()
    assert A.name in client.replica.states


def test_a_chain_that_never_answered_is_named(stage: Stage) -> None:
    client = stage.client()
    client.subscribe(UNHEARD, 3)
    stage.later(21)
    client.read()
    assert client.replica.reply(3)["code"] == "chain_unavailable"


def test_an_unwatched_channel_lingers_then_closes(stage: Stage) -> None:
    stage.open(A)
    client = stage.client()
    client.subscribe(A)
    stage.hub.unsubscribe(client.session, A, None)
    stage.later(59)
    assert stage.hub.peek(A) is not None, "a look keeps it open for another while"
    stage.later(59)
    assert stage.unwanted == []
    stage.later(2)
    stage.later(1)
    assert stage.unwanted == [A.name]
    assert stage.hub.peek(A) is None
    client.subscribe(A)
    assert stage.wanted == [A.name]


def test_of_too_many_unwatched_channels_those_go_that_waited_longest(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openings, "_MAX_IDLE", 3)
    channels = [channel(number) for number in range(1, 7)]
    stage.open(*channels)
    client = stage.client()
    for one in channels:
        client.subscribe(one)
    for one in channels[:5]:
        stage.hub.unsubscribe(client.session, one, None)
    assert stage.hub.peek(channels[0]) is not None, "looked at just now"
    stage.later(2)
    assert stage.unwanted == [channels[1].name, channels[2].name]


def test_a_watched_channel_never_closes(stage: Stage) -> None:
    stage.open(A)
    first, second = stage.client("1"), stage.client("2")
    first.subscribe(A)
    second.subscribe(A)
    stage.hub.close(first.session)
    for _ in range(10):
        stage.later(30)
        second.session.awaiting_pong_since = None
    assert stage.unwanted == []
    stage.hub.close(second.session)
    stage.later(61)
    stage.later(1)
    assert stage.unwanted == [A.name]


def test_a_wish_nobody_has_any_more_is_withdrawn(stage: Stage) -> None:
    client = stage.client()
    client.subscribe(A)
    stage.hub.close(client.session)
    stage.later(21)
    assert stage.unwanted == [A.name]
    stage.later(61)
    assert stage.unwanted == [A.name]


def test_bye_tells_each_client_when_to_come_back(stage: Stage) -> None:
    one, two = stage.client("1"), stage.client("2")
    delays = iter((100, 2500))
    stage.hub.say_bye(CloseCode.SHUTDOWN, lambda: next(delays))
    assert one.read()[-1] == {"type": "bye", "code": 4001, "reconnect": True, "afterMs": 100}
    assert two.read()[-1]["afterMs"] == 2500
    assert one.codes == two.codes == [CloseCode.SHUTDOWN]
