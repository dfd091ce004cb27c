"""A state is encoded once for all who are sent it, never an old one, and no more is kept than there is room for."""

from rtserver.domain.ids import ChainId
from rtserver.hub.snapshots import KEPT_S, MAX_BYTES, Snapshots
from rtserver.hub.stream import Encoder, Stream

from .stage import Stage, channel

A = channel(1)


def _stream(number: int, size: int) -> Stream:
    return Stream(f"owner:1:{number}", ChainId(1), f"e{number}", {"0": {"value": "x" * size}}, "0x" + "0" * 64)


def test_who_comes_between_two_changes_shares_a_state_and_nobody_gets_an_old_one(stage: Stage) -> None:
    stage.open(A, size=3)
    for _ in range(3):
        for name in ("one", "two"):
            client = stage.client(name)
            client.subscribe(A)
            stage.assert_same(client)
        stage.block(A)
        stage.assert_same(client)
        # A block that changes nothing here: the same state, told of the new head.
        stage.block()
        late = stage.client()
        late.subscribe(A)
        _, snapshot, _ = late.read()
        assert snapshot["block"]["number"] == stage.head[A.chain_id].number
        stage.assert_same(late)


def test_a_new_epoch_begins_with_a_new_state(stage: Stage) -> None:
    stage.open(A)
    client = stage.client()
    client.subscribe(A)
    stage.lose_chain(A)
    stage.assert_same(client)


def test_a_state_is_encoded_once() -> None:
    snapshots, stream = Snapshots(lambda: 0.0), _stream(1, 10)
    parts = snapshots.parts(stream)
    assert snapshots.parts(stream) is parts
    stream.apply(None, ("1" * 16, 0.0), Encoder(), prove=True, patched={"0": (1, '{"value":"new"}')})
    assert b"".join(snapshots.parts(stream)) == b'{"0":{"value":"new"}}'


def test_what_is_kept_has_a_bound() -> None:
    snapshots = Snapshots(lambda: 0.0)
    for number in range(40):
        stream = _stream(number, MAX_BYTES // 10)
        assert snapshots.parts(stream) is snapshots.parts(stream)
        assert len(snapshots) <= MAX_BYTES
    huge = _stream(99, MAX_BYTES)
    assert snapshots.parts(huge) is not snapshots.parts(huge), "what never fits is not kept"
    assert len(snapshots) <= MAX_BYTES


def test_nothing_is_kept_for_long() -> None:
    """Each block makes another state: what was sent of all that were before is of no use to anyone."""
    now = 0.0
    snapshots = Snapshots(lambda: now)
    streams = [_stream(number, 1000) for number in range(3)]
    for stream in streams:
        snapshots.parts(stream)
        now += 1.0
    parts = snapshots.parts(streams[2])
    snapshots.tend(KEPT_S + 1.0)
    assert 1000 < len(snapshots) < 2000
    assert snapshots.parts(streams[2]) is parts
    snapshots.tend(KEPT_S + 2.0)
    assert len(snapshots) == 0


def test_the_hub_tends_to_it(stage: Stage) -> None:
    stage.open(A)
    stage.client().subscribe(A)
    kept = stage.hub._catching_up._snapshots
    assert len(kept) > 0
    stage.later(KEPT_S + 1.0)
    assert len(kept) == 0
