"""Streams over a restart: clients go on from where the last process left them, or start anew; never in between."""

from __future__ import annotations

import json

import pytest

from rtserver.domain.chain import BlockRef, Rollback
from rtserver.domain.diff import Change
from rtserver.domain.ids import BlockHash
from rtserver.domain.update import BlockUpdate
from rtserver.store.values import KeptStream

from .stage import CHAIN, Client, Stage, channel, header

ONE, TWO = channel(1), channel(2)


def ended() -> tuple[Stage, Client, dict[str, KeptStream]]:
    """Run a process to its orderly end: a client has seen everything of two channels."""
    stage = Stage()
    stage.start()
    stage.open(ONE, TWO, size=3)
    client = stage.client()
    client.subscribe(ONE, 1)
    client.subscribe(TWO, 2)
    for number in range(5):
        stage.block(ONE, TWO, value=str(number))
    stage.block(ONE, value="last")
    stage.assert_same(client)
    # What the store makes of it.
    streams = {
        name: KeptStream(epoch=stream.epoch, seq=stream.seq, tag=stream.tag, state=json.loads(json.dumps(stream.state)))
        for name, stream in stage.hub.kept_streams(CHAIN).items()
    }
    return stage, client, streams


def begun(before: Stage, streams: dict[str, KeptStream], *, at: int) -> Stage:
    """Start the next process, which reopens both channels and goes on with their streams."""
    stage = Stage()
    stage.head[CHAIN] = header(at)
    stage.start()
    for one in (ONE, TWO):
        stage.hub.reopen(one)
        stage.truth[one.name] = {key: dict(value) for key, value in before.truth[one.name].items()}
    stage.hub.go_on(streams)
    return stage


def read(stage: Stage) -> None:
    """The engine has read both channels."""
    opened = {one.name: stage.truth[one.name] for one in (ONE, TWO)}
    stage.hub.publish(BlockUpdate(chain_id=CHAIN, header=stage.head[CHAIN], is_new_head=False, opened=opened))


def reconnect(stage: Stage, client: Client, cursors: dict[str, str]) -> tuple[Client, list[dict[str, object]]]:
    again = stage.client("again")
    again.replica = client.replica
    for request_id, one in enumerate((ONE, TWO), 1):
        again.subscribe(one, request_id, cursors[one.name])
    return again, again.read()


def cursors_of(streams: dict[str, KeptStream]) -> dict[str, str]:
    return {name: f"{stream.epoch}.{stream.seq}.{stream.tag}" for name, stream in streams.items()}


@pytest.mark.parametrize("is_early", [True, False])
def test_a_client_goes_on(*, is_early: bool) -> None:
    """Also one that is back before its channels have been read."""
    before, client, streams = ended()
    after = begun(before, streams, at=120)
    after.truth[ONE.name]["1"]["value"] = "changed while nobody looked"
    del after.truth[ONE.name]["2"]
    if not is_early:
        read(after)
    again, messages = reconnect(after, client, cursors_of(streams))
    if is_early:
        read(after)
        messages += again.read()
    kinds = [message["type"] for message in messages]
    assert "snapshot" not in kinds
    # One change for the channel that changed, nothing for the other, and the replies.
    assert kinds.count("block") == 1
    assert [message["how"] for message in messages if message["type"] == "subscribed"] == ["resumed", "resumed"]
    after.assert_same(again)
    after.block(ONE, TWO, value="goes on")
    after.assert_same(again)
    assert all(after.hub.kept_streams(CHAIN)[name].epoch == stream.epoch for name, stream in streams.items())


def test_a_client_that_had_less_starts_anew() -> None:
    before, client, streams = ended()
    after = begun(before, streams, at=120)
    read(after)
    older = {name: f"{stream.epoch}.{stream.seq - 1}.{stream.tag}" for name, stream in streams.items()}
    _, messages = reconnect(after, client, older)
    assert [message["type"] for message in messages].count("snapshot") == 2


def test_a_reorganisation_before_a_channel_is_read_begins_new_epochs() -> None:
    """Its clients come back from a block that may be gone, and a stream that goes on could not tell them."""
    before, client, streams = ended()
    after = begun(before, streams, at=120)
    rollback = Rollback(to=BlockRef(number=117, hash=BlockHash("0x117")), dropped=(BlockHash("0x118"),))
    opened = {one.name: after.truth[one.name] for one in (ONE, TWO)}
    after.hub.publish(
        BlockUpdate(
            chain_id=CHAIN,
            header=after.head[CHAIN],
            is_new_head=True,
            rollback=rollback,
            opened={ONE.name: opened[ONE.name]},
        )
    )
    after.hub.publish(
        BlockUpdate(chain_id=CHAIN, header=after.head[CHAIN], is_new_head=False, opened={TWO.name: opened[TWO.name]})
    )
    again, messages = reconnect(after, client, cursors_of(streams))
    assert [message["type"] for message in messages].count("snapshot") == 2
    after.assert_same(again)
    new = {stream.epoch for stream in after.hub.kept_streams(CHAIN).values()}
    assert new.isdisjoint(stream.epoch for stream in streams.values())


def test_without_kept_streams_epochs_are_new() -> None:
    """After a crash: a seq of the old epoch must never come again with other content."""
    before, client, streams = ended()
    after = begun(before, {}, at=120)
    read(after)
    again, messages = reconnect(after, client, cursors_of(streams))
    assert [message["type"] for message in messages].count("snapshot") == 2
    after.assert_same(again)
    new = {stream.epoch for stream in after.hub.kept_streams(CHAIN).values()}
    assert new.isdisjoint(stream.epoch for stream in streams.values())


def test_reading_thousands_of_channels_again_takes_its_time() -> None:
    before, client, streams = ended()
    after = begun(before, streams, at=120)
    after.later(100)
    assert after.unwanted == []
    read(after)
    _, messages = reconnect(after, client, cursors_of(streams))
    assert "snapshot" not in [message["type"] for message in messages]


def test_a_channel_that_nobody_comes_back_to_is_closed() -> None:
    before, _, streams = ended()
    after = begun(before, streams, at=120)
    read(after)
    after.later(100)
    assert sorted(after.unwanted) == sorted([ONE.name, TWO.name])
    # Opened again later, it is another stream.
    after.hub.reopen(ONE)
    read(after)
    assert after.hub.kept_streams(CHAIN)[ONE.name].epoch not in {stream.epoch for stream in streams.values()}


def test_a_stream_whose_channel_is_not_reopened_is_let_go() -> None:
    _, _, streams = ended()
    stage = Stage()
    stage.start()
    stage.hub.go_on(streams)
    stage.open(ONE)
    assert stage.hub.kept_streams(CHAIN)[ONE.name].epoch != streams[ONE.name].epoch


def test_patches_of_a_stream_that_goes_on_are_folded() -> None:
    """What came as text, before and after, is in what is kept the second time."""
    before, _, streams = ended()
    after = begun(before, streams, at=120)
    read(after)
    after.block(ONE, value="text")
    after.change(TWO, Change(set={"9": {"value": "whole", "block": 1, "inner": {"a": 1}}}, remove=["1"]))
    second = after.hub.kept_streams(CHAIN)
    assert {name: stream.state for name, stream in second.items()} == after.truth
