"""What seeds found in the product, each as the smallest case that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import orjson
import pytest

from rtserver.domain.chain import Header
from rtserver.domain.diff import Change, State, apply, compose, diff
from rtserver.domain.ids import BlockHash, ChainId, TokenId
from rtserver.domain.update import BlockUpdate
from rtserver.hub.hub import Hub
from rtserver.hub.limits import Limits
from rtserver.hub.session import LAG_BYTES, Session
from rtserver.obs.metrics import Metrics
from rtserver.protocols.channels import Channel, PositionChannel

from .wire import Wire, payload_of

_CHAIN = ChainId(1)
_CHANNEL = PositionChannel(_CHAIN, "uniswap-v3", TokenId(1))
_OTHER = PositionChannel(_CHAIN, "uniswap-v3", TokenId(2))
_LARGE: State = {"1": {"text": "x" * 40_000}}


class _Stage:
    """A hub with two open channels and one client, on a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.number = 0
        self.hub = Hub(self, Limits(), Metrics(), clock=lambda: self.now, wall_ms=lambda: 0)
        self.hub.subscribe(Session("opener", Wire(1), self.now, print), _CHANNEL, None, None)
        self.hub.subscribe(Session("opener", Wire(1), self.now, print), _OTHER, None, None)
        self.publish(opened={_CHANNEL.name: _LARGE, _OTHER.name: _LARGE})
        self.wire = Wire(1)
        self.session = Session("client", self.wire, self.now, lambda code: self.wire.close(code))
        self.hub.open(self.session)

    def want(self, channel: Channel) -> None:
        """Be the hub's interest."""

    def unwant(self, channel: Channel) -> None:
        """Be the hub's interest."""

    def publish(self, **what: Any) -> None:
        self.number += 1
        block_hash, parent = (BlockHash(f"0x{number:064x}") for number in (self.number, self.number - 1))
        header = Header(number=self.number, hash=block_hash, parent_hash=parent, timestamp=0, logs_bloom=0)
        self.hub.publish(BlockUpdate(chain_id=_CHAIN, header=header, **what))

    def change(self, *channels: PositionChannel, text: str) -> None:
        self.publish(changes={channel.name: Change(patch={"1": {"text": text}}) for channel in channels})

    def received(self) -> Iterator[dict[str, Any]]:
        self.wire.flow(1_000)
        while self.wire.in_flight:
            yield orjson.loads(payload_of(self.wire.in_flight.popleft()))


def test_who_asks_and_does_not_read_costs_no_memory() -> None:
    stage = _Stage()
    stage.wire.is_stalled = True
    for request in range(50):
        stage.hub.subscribe(stage.session, _CHANNEL, request, None)
        stage.hub.resync(stage.session, _CHANNEL, f"again {request}")
    assert stage.wire.get_write_buffer_size() < LAG_BYTES + 50_000
    stage.wire.is_stalled = False
    before = list(stage.received())
    stage.hub.tick()
    after = list(stage.received())
    assert before[0]["type"] == "welcome"
    # One snapshot for all that was asked meanwhile, by the newest request's id, and a reply to each of the others.
    assert [message["type"] for message in after] == ["snapshot", *["subscribed"] * (len(after) - 1)]
    assert {message.get("how") for message in after[1:]} == {"snapshot"}
    asked = [*range(50), *(f"again {request}" for request in range(50))]
    replied = [message["id"] for message in (*before, *after) if message["type"] != "welcome"]
    assert after[0]["id"] == "again 49"
    assert len(after) > 90
    assert {*replied} == {*asked}
    stage.change(_CHANNEL, text="y")
    (block,) = stage.received()
    assert block["changes"][0]["prev"] == after[1]["seq"]


def test_a_resume_during_a_lag_is_answered_after_it() -> None:
    stage = _Stage()
    stage.hub.subscribe(stage.session, _CHANNEL, 1, None)
    cursor = list(stage.received())[-1]["cursor"]
    stage.change(_CHANNEL, text="y")
    list(stage.received())
    stage.wire.is_stalled = True
    for _ in range(2):
        stage.hub.resync(stage.session, _CHANNEL, None)
        stage.hub.subscribe(stage.session, _OTHER, None, None)
    stage.hub.subscribe(stage.session, _CHANNEL, 2, cursor)
    stage.wire.is_stalled = False
    list(stage.received())
    stage.hub.tick()
    answers = {message["type"]: message for message in stage.received() if message.get("channel") != _OTHER.name}
    assert [change["prev"] for change in answers["block"]["changes"]] == [0]
    assert (answers["subscribed"]["how"], answers["subscribed"]["id"]) == ("resumed", 2)


def test_what_was_held_back_comes_in_the_frame_that_follows() -> None:
    stage = _Stage()
    stage.hub.subscribe(stage.session, _CHANNEL, 1, None, latest=True)
    list(stage.received())
    stage.wire.is_stalled = True
    stage.hub.unsubscribe(stage.session, _OTHER, None)  # its answer is unsent
    stage.change(_CHANNEL, text="held back")
    stage.wire.is_stalled = False
    list(stage.received())
    stage.change(_CHANNEL, text="y")  # before the next look at who has drained
    (block,) = stage.received()
    (change,) = block["changes"]
    assert (change["prev"], change["seq"]) == (0, 2)
    stage.hub.tick()
    assert list(stage.received()) == []


def test_a_heartbeat_names_the_seq_that_was_written() -> None:
    stage = _Stage()
    stage.hub.subscribe(stage.session, _CHANNEL, 1, None, latest=True)
    list(stage.received())
    stage.wire.is_stalled = True
    stage.hub.unsubscribe(stage.session, _OTHER, None)
    stage.change(_CHANNEL, text="held back")
    stage.now += 16
    stage.hub.tick()
    stage.wire.is_stalled = False
    heartbeat = list(stage.received())[-1]
    assert heartbeat["seqs"] == {_CHANNEL.name: 0}


@pytest.mark.parametrize(
    ("steps"),
    [
        ({"x": {"a": 1, "b": 2}}, {"x": {"a": 1}}),
        ({"a": 1, "b": 2}, "text", {"c": 1}),
        ({"x": {"a": 1}}, {"x": "text"}, {"x": {"b": 1}}),
        ({"a": 1}, None, {"b": 1}),
        ("text", {"a": 1}, {"a": 1, "b": 2}),
    ],
)
def test_a_field_that_goes_away_deep_inside_is_told(steps: tuple[Any, ...]) -> None:
    states: list[State] = [{"1": {"more": step}} for step in steps]
    merged = Change()
    for before, after in pairwise(states):
        change = diff(before, after)
        stepwise = {key: dict(value) for key, value in before.items()}
        apply(stepwise, change)
        assert stepwise == after
        merged = compose(merged, change)
    at_once = {key: dict(value) for key, value in states[0].items()}
    apply(at_once, merged)
    assert at_once == states[-1]
