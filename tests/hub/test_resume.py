"""Resuming by cursor: all that was missed in one change, or a snapshot; never a part."""

import pytest

from rtserver.hub.stream import RING_ENTRIES, RING_S

from .stage import CHAIN, Client, Stage, channel

A = channel(1)


@pytest.fixture
def away(stage: Stage) -> Client:
    """Return a client that has left with a copy of A, at seq 2."""
    stage.open(A)
    client = stage.client()
    client.subscribe(A)
    stage.block(A, value="one")
    stage.block(A, value="two")
    client.read()
    stage.hub.close(client.session)
    return client


def _come_back(stage: Stage, gone: Client, cursor: str | None = None) -> tuple[Client, str, int]:
    """Reconnect with the copies that the client has; return how it joined and in how many frames."""
    client = stage.client()
    client.read()
    client.replica.states = gone.replica.states
    client.replica.places = gone.replica.places
    before = len(client.frames)
    client.subscribe(A, 5, cursor or gone.replica.cursors[A.name])
    client.read()
    stage.block(A, value="after")
    stage.assert_same(client)
    return client, client.replica.reply(5)["how"] if _is_alone(client) else "snapshot", len(client.frames) - before


def _is_alone(client: Client) -> bool:
    return len([m for m in client.replica.others if m.get("id") == 5]) == 1


def test_at_the_top_nothing_is_sent_again(stage: Stage, away: Client) -> None:
    client, how, frames = _come_back(stage, away)
    assert (how, frames) == ("resumed", 2)
    assert len(client.replica.blocks) == 1


def test_what_was_missed_comes_as_one_proven_change(stage: Stage, away: Client) -> None:
    for number in range(20):
        stage.block(A, value=str(number))
    client, how, frames = _come_back(stage, away)
    assert (how, frames) == ("resumed", 3)
    (change,) = client.replica.blocks[0]["changes"]
    assert (change["prev"], change["seq"]) == (2, 22)
    assert change["patch"]["0"]["value"] == "19"
    assert client.replica.proofs >= 1


@pytest.mark.parametrize(("missed", "how"), [(RING_ENTRIES, "resumed"), (RING_ENTRIES + 1, "snapshot")])
def test_the_ring_has_an_edge(stage: Stage, away: Client, missed: int, how: str) -> None:
    for _ in range(missed):
        stage.block(A)
    assert _come_back(stage, away)[1] == how


@pytest.mark.parametrize(("seconds", "how"), [(RING_S - 1, "resumed"), (RING_S + 1, "snapshot")])
def test_the_ring_has_an_age(stage: Stage, away: Client, seconds: float, how: str) -> None:
    stage.block(A)
    stage.now += seconds
    stage.block(A)
    assert _come_back(stage, away)[1] == how


def test_a_cursor_of_an_orphaned_block_resumes_through_the_correction(stage: Stage, away: Client) -> None:
    stage.reorg(1, A)
    client, how, _ = _come_back(stage, away)
    assert how == "resumed"
    assert client.replica.states[A.name]["0"]["value"] == "after"


@pytest.mark.parametrize(
    "forge",
    [
        lambda epoch, seq, tag: f"other.{seq}.{tag}",
        lambda epoch, seq, tag: f"{epoch}.{seq}.{'0' * 16}",
        lambda epoch, seq, tag: f"{epoch}.{seq}.",
        lambda epoch, seq, tag: f"{epoch}.{int(seq) + 1}.{tag}",
        lambda epoch, seq, tag: f"{epoch}.999999.{tag}",
        lambda epoch, seq, tag: f"{epoch}.-1.{tag}",
        lambda epoch, seq, tag: "garbage",
        lambda epoch, seq, tag: "." * 70,
    ],
    ids=["epoch", "hash", "no hash", "next seq", "future", "negative", "garbage", "dots"],
)
def test_a_cursor_that_can_not_be_proven_gets_a_snapshot(stage: Stage, away: Client, forge) -> None:  # type: ignore[no-untyped-def]
    epoch, seq, tag = away.replica.cursors[A.name].split(".")
    assert _come_back(stage, away, forge(epoch, seq, tag))[1] == "snapshot"


def test_resuming_twice_on_one_socket(stage: Stage, away: Client) -> None:
    cursor = away.replica.cursors[A.name]
    stage.block(A, value="missed")
    client, how, _ = _come_back(stage, away)
    assert how == "resumed"
    # The same old cursor again: the client goes back to the state that it says it has.
    client.replica.places[A.name] = (client.replica.places[A.name][0], 2)
    client.subscribe(A, 6, cursor)
    stage.block(A)
    stage.assert_same(client)
    assert client.replica.reply(6)["how"] == "resumed"


def test_a_snapshot_read_over_rest_is_a_place_to_resume_from(stage: Stage, away: Client) -> None:
    stream = stage.hub.peek(A)
    assert stream is not None
    client = stage.client()
    client.replica.states[A.name] = {key: dict(value) for key, value in stream.state.items()}
    client.replica.places[A.name] = (stream.epoch, stream.seq)
    cursor = stream.cursor
    stage.block(A, value="between")
    client.subscribe(A, 1, cursor)
    client.read()
    assert client.replica.reply(1)["how"] == "resumed"
    stage.assert_same(client)
    assert stage.hub.head(CHAIN) == stage.head[CHAIN]
