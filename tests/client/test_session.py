"""The state machine by sequences of messages, without a socket and on a manual clock."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.client.events import Beat, BlockUpdate, Connected, Failed, Mismatch, Update
from rtserver.client.roster import MAX_HELD, Phase
from rtserver.client.session import MAX_WRONG_SNAPSHOTS, Session
from rtserver.wire.checksum import checksum_of

from .messages import Told, block_frame, block_json, heartbeat, welcome
from .wire import Wire

A = "owner:31337:0xAbCd000000000000000000000000000000000001"
B = "pool:31337:0xAbCd000000000000000000000000000000000002"


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def told() -> Told:
    return Told(A, {"u:1": {"amount0": "5", "token0": {"symbol": "WETH"}}, "u:2": {"amount0": "7"}})


def test_welcome_says_what_the_server_offers() -> None:
    session = Session()
    session.connected(0.0)
    (event,) = session.receive(json.dumps(welcome(heartbeat_ms=2000)), 0.0)
    assert isinstance(event, Connected)
    assert (event.session, event.heartbeat_s, event.again) == ("s1", 2.0, False)
    assert session.silent_at == 12.0


def test_nothing_is_asked_before_the_welcome() -> None:
    session = Session(token="t")
    session.want(A, 0.0)
    session.connected(0.0)
    session.tick(0.0)
    assert session.outbox.take(0.0) == []
    session.receive(json.dumps(welcome()), 0.0)
    assert [json.loads(data)["type"] for data in session.outbox.take(0.0)] == ["auth", "subscribe"]


def test_another_protocol_is_refused() -> None:
    session = Session()
    session.connected(0.0)
    (event,) = session.receive(json.dumps(welcome(protocol="rtserver.v9")), 0.0)
    assert isinstance(event, Failed) and "rtserver.v9" in event.error.message


def test_the_server_spelling_is_taken_over_by_request(wire: Wire, told: Told) -> None:
    (update,) = wire.join(told, A.lower())
    assert isinstance(update, Update)
    assert (update.channel, update.kind, update.seq, update.proved) == (A, "snapshot", 1, True)
    assert update.state == told.state
    assert wire.session.replica(A.lower()) is wire.session.replica(A)
    assert wire.session.phase(A) is Phase.LIVE
    assert list(wire.session.replicas) == [A]


def test_two_spellings_that_are_one_channel_share_a_copy(wire: Wire) -> None:
    one = Told("position:31337:u:7", {"7": {"tokenId": "7"}})
    wire.join(one)
    wire.session.want("position:31337:u:007", wire.now)
    (request,) = wire.sent()
    assert request["channel"] == "position:31337:u:007"
    (update,) = wire.say(*one.snapshot(request["id"]), one.subscribed(request["id"]))
    assert update.channel == one.channel
    assert wire.session.replica("position:31337:u:007") is wire.session.replica(one.channel)
    wire.session.drop(one.channel)
    assert wire.sent() == []  # the other spelling is still wanted
    wire.session.drop("position:31337:u:007")
    assert [m["type"] for m in wire.sent()] == ["unsubscribe"]


def test_wanting_a_known_channel_answers_at_once(wire: Wire, told: Told) -> None:
    wire.join(told)
    update = wire.session.want(A.lower(), wire.now)
    assert update is not None and update.state == told.state
    assert wire.sent() == []


@given(parts=st.integers(1, 5), order=st.randoms(use_true_random=False))
def test_a_snapshot_comes_in_parts_in_any_order(parts: int, order: Any) -> None:
    wire = Wire()
    told = Told(A, {f"u:{index}": {"n": str(index)} for index in range(9)})
    wire.session.want(A, wire.now)
    (request,) = wire.sent()
    messages = told.snapshot(request["id"], parts=parts)
    order.shuffle(messages)
    assert wire.say(*messages[:-1]) == []
    (update,) = wire.say(messages[-1])
    assert update.state == told.state


def test_parts_of_another_snapshot_are_not_mixed_in(wire: Wire, told: Told) -> None:
    wire.session.want(A, wire.now)
    (request,) = wire.sent()
    wire.say(told.snapshot(request["id"], parts=2)[0])
    told.change(block_json(2), remove=["u:1"])
    (update,) = wire.say(*told.snapshot(request["id"], parts=2))
    assert update.state == {"u:2": {"amount0": "7"}}


def test_changes_are_applied_and_told_as_one_block(wire: Wire, told: Told) -> None:
    pool = Told(B, {"p": {"tick": 1}})
    wire.join(told)
    wire.join(pool)
    block = block_json(2)
    (frame,) = wire.say(
        block_frame(
            block,
            told.change(block, set={"u:3": {"amount0": "1"}}, patch={"u:1": {"amount0": "6"}}, remove=["u:2"]),
            pool.change(block, patch={"p": {"tick": 2}}, prove=True),
        )
    )
    assert isinstance(frame, BlockUpdate)
    assert [update.channel for update in frame.changes] == [A, B]
    first, second = frame.changes
    assert first.state == {"u:1": {"amount0": "6", "token0": {"symbol": "WETH"}}, "u:3": {"amount0": "1"}}
    assert first.change is not None and first.change.remove == ["u:2"]
    assert (first.proved, second.proved) == (False, True)
    assert first.block.number == 2 and frame.inexact == frozenset()
    assert wire.session.stats.applied == 2


def test_states_that_were_told_stay_as_they_are(wire: Wire, told: Told) -> None:
    (before,) = wire.join(told)
    block = block_json(2)
    wire.say(block_frame(block, told.change(block, patch={"u:1": {"amount0": "6", "token0": {"symbol": "X"}}})))
    assert before.state["u:1"] == {"amount0": "5", "token0": {"symbol": "WETH"}}
    replica = wire.session.replica(A)
    assert replica is not None and replica.state["u:1"]["amount0"] == "6"


@pytest.mark.parametrize(
    ("field", "value", "reason"), [("prev", 0, "gap"), ("prev", 2, "gap"), ("epoch", "e2", "epoch")]
)
def test_a_change_that_does_not_fit_is_healed_by_a_snapshot(
    wire: Wire, told: Told, field: str, value: Any, reason: str
) -> None:
    wire.join(told)
    block = block_json(2)
    change = told.change(block, patch={"u:1": {"amount0": "6"}})
    (frame,) = wire.say(block_frame(block, {**change, field: value}))
    assert frame.changes == () and frame.inexact == {A}
    (request,) = wire.sent()
    assert (request["type"], request["channel"], request["reason"]) == ("resync", A, reason)
    assert wire.session.phase(A) is Phase.HEALING

    # What comes before the snapshot is held, and what it covers is not applied twice.
    block = block_json(3)
    held = block_frame(block, told.change(block, patch={"u:1": {"amount0": "8"}}))
    (frame,) = wire.say(held)
    assert frame.changes == () and frame.inexact == {A}
    (update,) = wire.say(*told.snapshot(request["id"]))
    assert (update.kind, update.seq, update.state["u:1"]["amount0"]) == ("snapshot", 3, "8")
    assert wire.session.phase(A) is Phase.LIVE
    assert wire.session.stats.resyncs == 1 and wire.session.stats.reasons == {reason: 1}


def test_an_answer_to_an_earlier_watch_is_not_taken_for_a_newer_one(wire: Wire, told: Told) -> None:
    """Left and joined again while the answer to a resume was on its way: there is nothing to heal."""
    wire.join(told)
    wire.connect()
    (resume,) = wire.sent()
    assert resume["cursor"] == told.cursor
    wire.session.drop(A)
    wire.session.want(A, wire.now)
    leave, again = wire.sent()
    assert (leave["type"], again["type"], "cursor" in again) == ("unsubscribe", "subscribe", False)
    block = block_json(2)
    wire.say(block_frame(block, told.change(block, patch={"u:1": {"amount0": "6"}})))
    assert wire.say(told.subscribed(resume["id"], how="resumed")) == []
    wire.say({"type": "unsubscribed", "channel": A, "id": leave["id"]})
    (update,) = wire.say(*told.snapshot(again["id"]), told.subscribed(again["id"]))
    assert update.state["u:1"]["amount0"] == "6"
    assert wire.session.phase(A) is Phase.LIVE
    assert wire.session.stats.resyncs == 0
    assert wire.sent() == []


def test_held_changes_after_the_snapshot_are_applied(wire: Wire, told: Told) -> None:
    wire.session.want(A, wire.now)
    (request,) = wire.sent()
    first, last = told.snapshot(request["id"], parts=2)
    block = block_json(2)
    frame = block_frame(block, told.change(block, patch={"u:1": {"amount0": "6"}}, prove=True))
    wire.say(first)
    (held,) = wire.say(frame)
    assert held.changes == ()
    snapshot, later = wire.say(last)
    assert snapshot.state["u:1"]["amount0"] == "5"
    assert isinstance(later, BlockUpdate) and later.changes[0].state["u:1"]["amount0"] == "6"
    assert wire.session.phase(A) is Phase.LIVE and wire.session.checksum_ok


def test_more_held_changes_than_fit_end_in_a_resync(wire: Wire, told: Told) -> None:
    wire.session.want(A, wire.now)
    (request,) = wire.sent()
    snapshot = told.snapshot(request["id"])
    for number in range(2, 4 + MAX_HELD):
        block = block_json(number)
        wire.say(block_frame(block, told.change(block, patch={"u:1": {"amount0": str(number)}})))
    wire.say(*snapshot)
    (request,) = wire.sent()
    assert (request["type"], request["reason"]) == ("resync", "gap")


def test_a_patch_of_an_unknown_key_is_healed(wire: Wire, told: Told) -> None:
    wire.join(told)
    block = block_json(2)
    change = told.change(block, set={"u:9": {}})
    del change["set"]
    wire.say(block_frame(block, {**change, "patch": {"u:9": {"amount0": "1"}}}))
    (request,) = wire.sent()
    assert request["reason"] == "unknown_key"
    replica = wire.session.replica(A)
    assert replica is not None and "u:9" not in replica.state and replica.seq == 1


def test_a_wrong_checksum_is_never_told(wire: Wire, told: Told) -> None:
    wire.join(told)
    block = block_json(2)
    mismatch, frame = wire.say(block_frame(block, told.change(block, patch={"u:1": {"amount0": "6"}}, lie=1)))
    assert isinstance(mismatch, Mismatch)
    assert (mismatch.channel, mismatch.on, mismatch.theirs - mismatch.ours) == (A, "change", 1)
    assert frame.changes == ()
    assert not wire.session.checksum_ok and wire.session.stats.mismatches == 1
    (request,) = wire.sent()
    assert request["reason"] == "checksum"
    (update,) = wire.say(*told.snapshot(request["id"]))
    assert update.state == told.state and wire.session.checksum_ok


def test_snapshots_that_contradict_themselves_are_given_up(wire: Wire, told: Told) -> None:
    wire.session.want(A, wire.now)
    events: list[Any] = []
    for _ in range(MAX_WRONG_SNAPSHOTS):
        (request,) = wire.sent()
        events += wire.say(*told.snapshot(request["id"], lie=7))
    assert [type(event) for event in events] == [Mismatch] * MAX_WRONG_SNAPSHOTS + [Failed]
    assert events[-1].names == {A} and events[-1].error.code == "unrecoverable"
    assert wire.session.phase(A) is None and wire.sent() == []


def test_a_rollback_is_one_more_change(wire: Wire, told: Told) -> None:
    wire.join(told)
    for number in (2, 3):
        block = block_json(number)
        wire.say(block_frame(block, told.change(block, patch={"u:1": {"amount0": str(number)}})))
    block = block_json(2, fork="b")
    rollback = {"to": {"number": 1, "hash": block_json(1)["hash"]}, "dropped": [block_json(n)["hash"] for n in (2, 3)]}
    (frame,) = wire.say(
        block_frame(block, told.change(block, patch={"u:1": {"amount0": "5"}}, prove=True), rollback=rollback)
    )
    assert frame.rollback.to.number == 1 and len(frame.rollback.dropped) == 2
    (update,) = frame.changes
    assert (update.block.number, update.seq, update.rollback) == (2, 4, frame.rollback)
    assert wire.session.stats.rollbacks == 1


def test_a_heartbeat_is_answered_and_reveals_a_lost_last_message(wire: Wire, told: Told) -> None:
    wire.join(told)
    (event,) = wire.say(heartbeat({A: 1}))
    assert isinstance(event, Beat)
    assert [m["type"] for m in wire.sent()] == ["pong"]
    wire.say(heartbeat({A: 2, B: 9}))
    assert [m["type"] for m in wire.sent()] == ["pong", "resync"]
    wire.say(heartbeat({A: 2}))
    assert [m["type"] for m in wire.sent()] == ["pong"]  # it is being healed already
    assert wire.session.stats.reasons == {"missed": 1}


def test_a_heartbeat_proves_a_copy_or_reveals_what_was_altered_on_the_way(wire: Wire, told: Told) -> None:
    wire.join(told)
    mine = checksum_of(told.state)
    proofs = wire.session.stats.proofs
    (event,) = wire.say(heartbeat({A: 1}, {A: mine, B: 5}))
    assert isinstance(event, Beat)
    assert wire.session.stats.proofs == proofs + 1
    mismatch, _ = wire.say(heartbeat({A: 1}, {A: mine + 1}))
    assert isinstance(mismatch, Mismatch)
    assert (mismatch.channel, mismatch.on, mismatch.theirs - mismatch.ours) == (A, "heartbeat", 1)
    *_, request = wire.sent()
    assert (request["type"], request["reason"]) == ("resync", "checksum")
    wire.say(*told.snapshot(request["id"]))
    assert wire.session.checksum_ok
    # One of another place says nothing of this copy: only that it is another place.
    wire.say(heartbeat({A: 2}, {A: mine + 1}))
    assert wire.session.stats.reasons == {"checksum": 1, "missed": 1}
