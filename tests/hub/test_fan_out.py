"""One frame a session a step, shared by all who get the same; sequences without gaps; proofs; rollbacks."""

from itertools import pairwise

import pytest

from rtserver.domain.diff import Change

from .stage import CHAIN, OTHER_CHAIN, Stage, channel

A, B, C = channel(1), channel(2), channel(3)
ELSEWHERE = channel(1, OTHER_CHAIN)


def test_a_step_over_many_channels_is_one_frame(stage: Stage) -> None:
    stage.open(A, B, C)
    client = stage.client()
    for one in (C, A, B):
        client.subscribe(one)
    client.read()
    head = stage.block(A, B)
    (block,) = client.read()
    assert block["chainId"] == CHAIN
    assert block["block"] == {
        "number": head.number,
        "hash": head.hash,
        "parentHash": head.parent_hash,
        "timestamp": head.timestamp,
    }
    assert {change["channel"] for change in block["changes"]} == {A.name, B.name}
    assert "rollback" not in block
    stage.assert_same(client)


def test_whoever_gets_the_same_gets_the_same_bytes(stage: Stage) -> None:
    stage.open(A, B)
    alike = [stage.client(str(index)) for index in range(3)]
    for client in alike:
        client.subscribe(A)
        client.subscribe(B)
    other = stage.client()
    other.subscribe(B)
    stage.block(A, B)
    assert alike[0].frames[-1] is alike[1].frames[-1] is alike[2].frames[-1]
    assert other.frames[-1] != alike[0].frames[-1]
    stage.assert_same(*alike, other)


def test_the_order_of_joining_makes_no_second_frame(stage: Stage) -> None:
    stage.open(A, B)
    one, two = stage.client("1"), stage.client("2")
    for first, second, client in ((A, B, one), (B, A, two)):
        client.subscribe(first)
        client.subscribe(second)
    stage.block(A, B)
    assert one.frames[-1] is two.frames[-1]


@pytest.mark.parametrize("count", range(7))
def test_few_channels_or_most_are_told_alike(stage: Stage, count: int) -> None:
    """Whoever gets what is found in one of two ways, by what is less to look at."""
    channels = [channel(number) for number in range(6)]
    stage.open(*channels)
    sets = [channels[:1], channels[:2], channels[1:3], channels[3:], channels, []]
    pairs = [(stage.client(f"{index} a"), stage.client(f"{index} b")) for index in range(len(sets))]
    for wanted, (one, two) in zip(sets, pairs, strict=True):
        for client, order in ((one, wanted), (two, wanted[::-1])):
            for each in order:
                client.subscribe(each)
            client.read()
    # Someone who left is told nothing of it, whatever was known of him.
    stage.block(*channels)
    for client in pairs[4]:
        stage.hub.unsubscribe(client.session, channels[0], None)
    for pair in pairs:
        for client in pair:
            client.read()
    sets[4] = channels[1:]
    told = {each.name for each in channels[:count]}
    stage.block(*channels[:count])
    for wanted, (one, two) in zip(sets, pairs, strict=True):
        expected = told & {each.name for each in wanted}
        assert [{change["channel"] for change in block["changes"]} for block in one.read()] == [expected] * bool(
            expected
        )
        if expected:
            assert one.frames[-1] is two.frames[-1]
        stage.assert_same(one, two)
    assert not any(stream.fragment for stream in stage.hub._openings.streams.values())


def test_a_block_that_concerns_nobody_is_sent_to_nobody(stage: Stage) -> None:
    stage.open(A, B, ELSEWHERE)
    client = stage.client()
    client.subscribe(A)
    client.read()
    stage.block(B)
    stage.block(ELSEWHERE)
    stage.change(A, Change())
    assert client.read() == []


def test_seq_grows_by_one_and_prev_is_the_one_before(stage: Stage) -> None:
    stage.open(A)
    client = stage.client()
    client.subscribe(A)
    for _ in range(40):
        stage.block(A)
    client.read()
    changes = [change for block in client.replica.blocks for change in block["changes"]]
    assert [(change["prev"], change["seq"]) for change in changes] == [(n, n + 1) for n in range(40)]
    assert len({change["epoch"] for change in changes}) == 1
    proven = [change["seq"] for change in changes if "checksum" in change]
    assert {after - before for before, after in pairwise(proven)} == {16}, "each 16th proves itself"
    assert proven[0] <= 16
    stage.assert_same(client)


def test_sets_patches_and_removals_keep_the_proof_right(stage: Stage) -> None:
    stage.open(A, size=3)
    client = stage.client()
    client.subscribe(A)
    for number in range(17):
        stage.change(
            A,
            Change(
                set={f"new {number}": {"é": None, "deep": {"b": [1, 2], "a": True}}},
                patch={"0": {"value": str(number)}},
                remove=[f"new {number - 2}"],
            ),
        )
    stage.assert_same(client)
    assert client.replica.proofs >= 1


def test_two_streams_of_one_channel_name_never_share_an_epoch(stage: Stage) -> None:
    stage.open(A)
    client = stage.client()
    client.subscribe(A)
    client.read()
    first = client.replica.places[A.name]
    stage.hub.unsubscribe(client.session, A, None)
    stage.later(61)
    stage.later(1.1)
    assert stage.unwanted == [A.name]
    client.subscribe(A, 2, client.replica.cursors[A.name])
    stage.open(A)
    client.read()
    assert client.replica.places[A.name][0] != first[0]
    assert [m["how"] for m in client.replica.others if m.get("id") == 2] == ["snapshot"]


def test_a_rollback_reaches_every_channel_of_its_chain(stage: Stage) -> None:
    stage.open(A, B, ELSEWHERE)
    changed, unchanged, elsewhere = (stage.client(str(index)) for index in range(3))
    changed.subscribe(A)
    unchanged.subscribe(B)
    elsewhere.subscribe(ELSEWHERE)
    stage.block(A)
    stage.block(A)
    for client in (changed, unchanged, elsewhere):
        client.read()
    old = stage.head[CHAIN]
    head = stage.reorg(2, A)
    for client, one in ((changed, A), (unchanged, B)):
        (block,) = client.read()
        assert block["block"]["hash"] == head.hash
        assert block["rollback"]["to"]["number"] == old.number - 2
        assert block["rollback"]["dropped"][0] == old.hash
        assert len(block["rollback"]["dropped"]) == 2
        (change,) = block["changes"]
        assert change["channel"] == one.name
        assert "checksum" in change
    assert elsewhere.read() == []
    stage.assert_same(changed, unchanged)


def test_a_client_that_left_gets_nothing(stage: Stage) -> None:
    stage.open(A)
    client = stage.client()
    client.subscribe(A)
    client.read()
    stage.hub.close(client.session)
    stage.hub.close(client.session)
    stage.block(A)
    assert client.read() == []
    assert list(stage.hub.sessions) == []
    cut = stage.client()
    cut.subscribe(A)
    cut.read()
    cut.abort()
    stage.block(A)
    assert cut.read() == []
