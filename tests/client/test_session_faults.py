"""The state machine when connections drop, requests fail, messages make no sense, and all of it at random."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.client.events import BlockUpdate, Failed
from rtserver.client.roster import Phase
from rtserver.client.session import ANSWER_TIMEOUT_S

from .messages import Told, block_frame, block_json, heartbeat
from .wire import Wire

A = "owner:31337:0xAbCd000000000000000000000000000000000001"
B = "pool:31337:0xAbCd000000000000000000000000000000000002"


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def told() -> Told:
    return Told(A, {"u:1": {"amount0": "5", "token0": {"symbol": "WETH"}}, "u:2": {"amount0": "7"}})


def test_after_a_reconnect_a_channel_goes_on_from_its_cursor(wire: Wire, told: Told) -> None:
    wire.join(told)
    cursor = told.cursor
    wire.session.disconnected(wire.now)
    assert wire.session.phase(A) is Phase.IDLE
    (connected,) = wire.connect()
    assert connected.again
    (request,) = wire.sent()
    assert (request["type"], request["cursor"]) == ("subscribe", cursor)
    # What was missed comes first, `subscribed` last.
    block = block_json(5)
    wire.say(block_frame(block, told.change(block, patch={"u:1": {"amount0": "9"}})))
    caught_up, resumed = wire.say(told.subscribed(request["id"], "resumed"))
    assert isinstance(caught_up, BlockUpdate) and caught_up.changes[0].kind == "change"
    assert (resumed.kind, resumed.seq, resumed.state["u:1"]["amount0"]) == ("resumed", 2, "9")
    assert wire.session.phase(A) is Phase.LIVE
    assert (wire.session.stats.resumed, wire.session.stats.reconnects, wire.session.stats.resyncs) == (1, 1, 0)


@pytest.mark.parametrize("lost", ["seq", "epoch"])
def test_a_resume_that_does_not_add_up_is_healed(wire: Wire, told: Told, lost: str) -> None:
    wire.join(told)
    wire.session.disconnected(wire.now)
    wire.connect()
    (request,) = wire.sent()
    subscribed = told.subscribed(request["id"], "resumed")
    subscribed[lost] = {"seq": 5, "epoch": "other"}[lost]
    assert wire.say(subscribed) == []
    (again,) = wire.sent()
    assert again["type"] == "resync"


def test_a_resume_may_be_answered_with_a_snapshot(wire: Wire, told: Told) -> None:
    wire.join(told)
    wire.session.disconnected(wire.now)
    wire.connect()
    (request,) = wire.sent()
    fresh = Told(A, {"u:9": {}}, epoch="e2")
    (update,) = wire.say(*fresh.snapshot(request["id"]), fresh.subscribed(request["id"]))
    assert (update.kind, update.epoch, update.state) == ("snapshot", "e2", {"u:9": {}})


def test_half_a_snapshot_does_not_survive_the_connection(wire: Wire, told: Told) -> None:
    wire.session.want(A, wire.now)
    (request,) = wire.sent()
    wire.say(told.snapshot(request["id"], parts=2)[0])
    wire.session.disconnected(wire.now)
    wire.connect()
    (request,) = wire.sent()
    assert "cursor" not in request
    assert wire.say(told.snapshot(request["id"], parts=2)[1]) == []


def test_what_is_not_answered_is_asked_again(wire: Wire, told: Told) -> None:
    wire.session.want(A, wire.now)
    (first,) = wire.sent()
    assert wire.session.next_at(wire.now) == wire.now + ANSWER_TIMEOUT_S
    wire.now += ANSWER_TIMEOUT_S
    (second,) = wire.sent()
    assert (second["type"], second["id"] != first["id"]) == ("subscribe", True)
    wire.say(*told.snapshot(second["id"]))
    wire.say(heartbeat({A: 7}))
    wire.sent()
    wire.now += ANSWER_TIMEOUT_S
    assert [m["type"] for m in wire.sent()] == ["resync"]


def test_a_refusal_reaches_whoever_asked(wire: Wire) -> None:
    wire.session.want("owner:1:nobody", wire.now)
    (request,) = wire.sent()
    (event,) = wire.say({"type": "error", "id": request["id"], "code": "bad_channel", "message": "no"})
    assert isinstance(event, Failed)
    assert event.names == {"owner:1:nobody"}
    assert (event.error.code, event.error.message) == ("bad_channel", "no")
    assert wire.session.phase("owner:1:nobody") is None


def test_a_rate_limit_is_waited_for(wire: Wire, told: Told) -> None:
    wire.session.want(A, wire.now)
    (request,) = wire.sent()
    error = {"type": "error", "id": request["id"], "code": "rate", "message": "slow", "retryAfterMs": 1500}
    assert wire.say(error) == []
    assert wire.sent() == [] and wire.session.next_at(wire.now) == wire.now + 1.5
    wire.now += 1.5
    assert [m["type"] for m in wire.sent()] == ["subscribe"]


def test_a_channel_that_was_there_is_retried_and_not_given_up(wire: Wire, told: Told) -> None:
    wire.join(told)
    wire.session.disconnected(wire.now)
    wire.connect()
    (request,) = wire.sent()
    assert wire.say({"type": "error", "id": request["id"], "code": "chain_unavailable", "message": "down"}) == []
    wire.now += 60
    (request,) = wire.sent()
    assert "cursor" in request


@pytest.mark.parametrize("code", ["unrecoverable", "bad_request"])
def test_a_cursor_that_is_refused_is_dropped_once(wire: Wire, told: Told, code: str) -> None:
    wire.join(told)
    wire.session.disconnected(wire.now)
    wire.connect()
    (request,) = wire.sent()
    assert wire.say({"type": "error", "id": request["id"], "code": code, "message": "x"}) == []
    wire.now += 60
    (request,) = wire.sent()
    assert request["type"] == "subscribe" and "cursor" not in request
    (event,) = wire.say({"type": "error", "id": request["id"], "code": code, "message": "x"})
    assert isinstance(event, Failed)


def test_an_error_without_a_request_is_told(wire: Wire) -> None:
    (event,) = wire.say({"type": "error", "id": None, "code": "token_expired", "message": "m"})
    assert isinstance(event, Failed) and event.names == frozenset()


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ('{"type":"weather","sun":true}', (1, 0)),
        ('{"type":"block","chainId":"x"}', (0, 1)),
        ('{"no":"type"}', (0, 1)),
        ("[]", (0, 1)),
        ("{", (0, 1)),
        (b"\xff\xfe", (0, 1)),
    ],
)
def test_messages_that_are_not_understood_are_counted(wire: Wire, text: str | bytes, counted: tuple[int, int]) -> None:
    assert wire.session.receive(text, wire.now) == []
    assert (wire.session.stats.unknown, wire.session.stats.invalid) == counted


def test_more_fields_than_known_are_passed_over(wire: Wire, told: Told) -> None:
    wire.session.want(A, wire.now)
    (request,) = wire.sent()
    (message,) = told.snapshot(request["id"])
    assert len(wire.say({**message, "mood": "good"})) == 1


def test_bye(wire: Wire) -> None:
    assert wire.say({"type": "bye", "code": 4001, "reconnect": True, "afterMs": 700}) == []
    assert wire.session.bye is not None and wire.session.bye.after_ms == 700
    wire.session.disconnected(wire.now)
    assert wire.session.bye is None


def test_a_channel_of_the_servers_own_choice_is_kept_while_connected(wire: Wire) -> None:
    told = Told("position:31337:u:7", {"7": {"tokenId": "7"}})
    (update,) = wire.say(*told.snapshot())
    assert update.state == told.state
    block = block_json(2)
    (frame,) = wire.say(block_frame(block, told.change(block, patch={"7": {"x": 1}})))
    assert len(frame.changes) == 1
    wire.session.disconnected(wire.now)
    wire.connect()
    assert wire.sent() == []


def test_a_left_channel_is_not_taken_up_again(wire: Wire, told: Told) -> None:
    wire.join(told)
    wire.session.drop(A)
    (request,) = wire.sent()
    assert (request["type"], request["channel"]) == ("unsubscribe", A)
    block = block_json(2)
    (frame,) = wire.say(block_frame(block, told.change(block, patch={"u:1": {"amount0": "6"}})))
    assert frame.changes == ()
    assert wire.say(*told.snapshot()) == []
    wire.say({"type": "unsubscribed", "id": request["id"], "channel": A})
    assert wire.session.replicas == {}


def test_silence_is_measured_from_the_last_message(wire: Wire) -> None:
    wire.now += 24.9
    assert not wire.session.is_silent(wire.now)
    wire.now += 0.1
    assert wire.session.is_silent(wire.now)
    wire.say(heartbeat({}))
    assert not wire.session.is_silent(wire.now)


def test_messages_go_out_at_a_pace_and_pongs_at_once(wire: Wire) -> None:
    for index in range(40):
        wire.session.want(f"pool:1:{index}", wire.now)
    assert len(wire.sent()) == 16
    wire.say(heartbeat({}))
    assert [m["type"] for m in wire.sent()] == ["pong"]
    sent = 0
    for _ in range(10):
        wire.now = wire.session.next_at(wire.now)
        sent += len(wire.sent())
    assert sent <= 10 and wire.session.next_at(wire.now) - wire.now <= 0.5
    wire.now += 100
    assert len(wire.sent()) == 16


@given(st.data())
def test_whatever_is_lost_the_copy_converges(data: st.DataObject) -> None:
    """Any mix of lost, doubled and corrupted frames and reconnects ends in the server's state."""
    wire = Wire()
    told = Told(A, {"u:1": {"n": "0"}})
    wire.join(told)
    number = 1
    for _ in range(data.draw(st.integers(1, 12))):
        number += 1
        block = block_json(number)
        change = told.change(block, patch={"u:1": {"n": str(number)}}, prove=data.draw(st.booleans()))
        frame = block_frame(block, change)
        match data.draw(st.sampled_from(["ok", "ok", "lost", "twice", "lie", "cut", "drop"])):
            case "ok":
                wire.say(frame)
            case "twice":
                wire.say(frame, frame)
            case "lie":
                wire.say(block_frame(block, {**change, "checksum": 1}))
            case "cut":
                wire.session.receive(json.dumps(frame)[:-9], wire.now)
            case "drop":
                wire.session.disconnected(wire.now)
                wire.connect()
            case _:
                pass
        if data.draw(st.booleans()):
            _answer(wire, told)
    wire.say(heartbeat({A: told.seq}))
    _answer(wire, told)
    replica = wire.session.replica(A)
    assert replica is not None and replica.state == told.state and replica.seq == told.seq
    assert wire.session.phase(A) is Phase.LIVE and wire.session.checksum_ok


def _answer(wire: Wire, told: Told) -> None:
    while messages := wire.sent():
        for message in messages:
            if message["type"] == "subscribe" and message.get("cursor") == told.cursor:
                wire.say(told.subscribed(message["id"], "resumed"))
            elif message["type"] in {"subscribe", "resync"}:
                wire.say(*told.snapshot(message["id"]))
        wire.now += 1
