"""What it takes to bring a client to now: the smaller of two ways, every reply, and no more at once than fits."""

import pytest

from rtserver.domain.diff import Change
from rtserver.domain.errors import ClientError
from rtserver.hub.limits import Limits
from rtserver.hub.session import LAG_BYTES, SLOW_S
from rtserver.protocols.channels import Channel, PositionChannel

from .stage import Client, Stage, channel

A, B = channel(1), channel(2)


def _lagging(stage: Stage, *channels: Channel) -> Client:
    """Return a client of these channels, or of A, that has too much unsent."""
    client = stage.client()
    for one in channels or (A,):
        client.subscribe(one)
    client.read()
    client.unsent = LAG_BYTES + 1
    return client


def _opened(stage: Stage, count: int, size: int) -> list[PositionChannel]:
    channels = [channel(number) for number in range(count)]
    stage.open(*channels, size=size)
    return channels


def _drain(stage: Stage, client: Client) -> list[str]:
    client.unsent = 0
    stage.later(0.1)
    return [message["type"] for message in client.read()]


# --- the smaller of two ways ------------------------------------------------------------------------------


def test_a_snapshot_that_is_smaller_than_the_change_is_sent_instead(stage: Stage) -> None:
    stage.open(A, size=200)
    client = _lagging(stage)
    stage.change(A, Change(remove=[str(key) for key in range(1, 200)]))
    assert _drain(stage, client) == ["snapshot"]
    stage.block(A)
    stage.assert_same(client)


def test_a_change_that_is_smaller_stays_a_change(stage: Stage) -> None:
    stage.open(A, size=200)
    client = _lagging(stage)
    stage.change(A, Change(remove=[str(key) for key in range(1, 100)]))
    assert _drain(stage, client) == ["block"]
    stage.assert_same(client)


def test_who_resumes_gets_the_smaller_one_too(stage: Stage) -> None:
    stage.open(A, size=200)
    client = stage.client()
    client.subscribe(A)
    client.read()
    cursor = client.replica.cursors[A.name]
    stage.hub.unsubscribe(client.session, A, None)
    stage.change(A, Change(remove=[str(key) for key in range(1, 200)]))
    client.subscribe(A, 5, cursor)
    client.read()
    assert [reply["how"] for reply in client.replica.others if reply.get("id") == 5] == ["snapshot"]
    stage.assert_same(client)


# --- every reply ------------------------------------------------------------------------------------------


def test_each_request_during_a_lag_is_answered(stage: Stage) -> None:
    stage.open(A, B)
    client = _lagging(stage)
    client.subscribe(B, 1)
    stage.hub.resync(client.session, B, 2)
    client.subscribe(B, 3)
    stage.hub.resync(client.session, A, 4)
    client.unsent = 0
    stage.later(0.1)
    messages = client.read()
    assert sorted(message["id"] for message in messages) == [1, 2, 3, 3, 4]
    assert [(message["type"], message["channel"]) for message in messages if message["id"] == 3] == [
        ("snapshot", B.name),
        ("subscribed", B.name),
    ]
    assert [message["type"] for message in messages if message["id"] == 4] == ["snapshot"]
    stage.assert_same(client)


def test_requests_without_an_id_are_answered_as_one(stage: Stage) -> None:
    stage.open(A, B)
    client = _lagging(stage)
    for _ in range(3):
        stage.hub.subscribe(client.session, B, None, None)
    assert _drain(stage, client) == ["snapshot", "subscribed"]


def test_requests_that_wait_are_bounded() -> None:
    stage = Stage(Limits(channels=3))
    stage.start()
    client = stage.client()
    for request in range(6):
        client.subscribe(A, request)
    with pytest.raises(ClientError, match="wait for their answers") as caught:
        client.subscribe(A, 6)
    assert caught.value.code == "rate"
    assert caught.value.retry_after_ms
    stage.open(A)
    client.read()
    assert sorted({message["id"] for message in client.replica.others if "id" in message}) == [0, 1, 2, 3, 4, 5]
    # Answered requests count no more.
    client.unsent = LAG_BYTES + 1
    for request in range(6):
        stage.hub.resync(client.session, A, request)
    with pytest.raises(ClientError, match="wait for their answers"):
        stage.hub.resync(client.session, A, 6)
    with pytest.raises(ClientError, match="wait for their answers"):
        client.subscribe(A, 6)
    stage.hub.unsubscribe(client.session, A, 7)
    client.subscribe(B, 8)


# --- no more at once than fits ----------------------------------------------------------------------------


def test_what_a_laggard_is_owed_is_spread(stage: Stage) -> None:
    channels = _opened(stage, 20, size=400)
    client = _lagging(stage, *channels)
    client.takes_nothing = True
    stage.block(*channels)
    for request, one in enumerate(channels):
        stage.hub.resync(client.session, one, request)
    largest = rounds = 0
    client.unsent = 0
    seen: list[int] = []
    while client.session.lag_since is not None:
        stage.later(0.1)
        largest = max(largest, client.unsent)
        snapshots = [message for message in client.read() if message["type"] == "snapshot"]
        seen += [message["id"] for message in snapshots]
        one_snapshot = max(map(len, client.frames[-2:]))
        client.unsent = 0
        # What changes meanwhile doesn't push in.
        stage.block(channels[0])
        rounds += 1
        assert rounds < 100
    assert sorted(seen) == list(range(20)), "each was answered once"
    assert rounds > 4
    assert largest <= LAG_BYTES + one_snapshot
    client.takes_nothing = False
    stage.later(0.1)
    stage.assert_same(client)


def test_merged_changes_are_spread_like_snapshots(stage: Stage) -> None:
    channels = _opened(stage, 20, size=100)
    client = _lagging(stage, *channels)
    for key in range(100):
        stage.block(*channels, key=str(key), value="x" * 100)
    client.takes_nothing = True
    client.unsent = 0
    stage.later(0.1)
    (block,) = client.read()
    assert 1 < len(block["changes"]) < 20
    assert len(client.frames[-1]) < 2 * LAG_BYTES


def test_what_changes_often_does_not_keep_others_waiting(stage: Stage) -> None:
    channels = _opened(stage, 4, size=1500)
    client = _lagging(stage, *channels)
    client.takes_nothing = True
    for request, one in enumerate(channels):
        stage.hub.resync(client.session, one, request)
    answered: list[int] = []
    for _ in channels:
        client.unsent = 0
        stage.later(0.1)
        answered += [message["id"] for message in client.read() if "id" in message]
        # Those that were answered have as much to tell again.
        for key in range(1500):
            stage.block(channels[0], key=str(key), value="y" * 100)
    assert answered == [0, 1, 2, 3]


def test_who_goes_on_taking_is_not_slow(stage: Stage) -> None:
    channels = _opened(stage, 10, size=1500)
    client = _lagging(stage, *channels)
    client.takes_nothing = True
    for request, one in enumerate(channels):
        stage.hub.resync(client.session, one, request)
    for _ in range(6):
        client.unsent = 0
        stage.later(0.1)
        stage.later(SLOW_S - 1)
    assert client.codes == []
    stage.later(2)
    assert len(client.codes) == 1, "and who stops is"


def test_a_client_of_the_newest_state_that_can_not_take_it_all_lags(stage: Stage) -> None:
    channels = _opened(stage, 20, size=400)
    client = stage.client()
    for one in channels:
        client.subscribe(one, latest=True)
    client.read()
    client.unsent = 1
    for key in range(400):
        stage.block(*channels, key=str(key), value="x" * 20)
    client.takes_nothing = True
    client.unsent = 0
    stage.later(0.1)
    assert list(client.session.joined) == [one.name for one in channels]
    assert client.unsent < 2 * LAG_BYTES
    while client.session.lag_since is not None:
        client.unsent = 0
        stage.later(0.1)
    client.takes_nothing = False
    client.unsent = 0
    stage.later(0.1)
    stage.assert_same(client)
