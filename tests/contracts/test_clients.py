"""What clients are told must not depend on what joins them to the engine; nor on which gateway they are at."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hub.stage import Client, channel
from redis.asyncio import RedisCluster

from rtserver.broker.memory import MemoryLink
from rtserver.broker.ports import Fenced
from rtserver.domain.diff import Change
from rtserver.hub.stream import RING_ENTRIES
from rtserver.protocols.channels import Channel

from .joined import Joined, until

A, B, C = channel(1), channel(2), channel(3)


async def test_a_client_follows_what_changes(all_ways: Joined) -> None:
    client = all_ways.client()
    assert await all_ways.subscribed(client, A) == "snapshot"
    for value in range(40):
        all_ways.set_value(str(value), A)
    await all_ways.converged()
    assert client.replica.proofs >= 2
    assert len(client.replica.blocks) == 40


async def test_one_frame_a_block_over_all_channels(all_ways: Joined) -> None:
    client = all_ways.client()
    await all_ways.subscribed(client, A, 1)
    await all_ways.subscribed(client, B, 2)
    all_ways.set_value("x", A, B)
    await all_ways.converged()
    (frame,) = client.replica.blocks
    assert {change["channel"] for change in frame["changes"]} == {A.name, B.name}
    assert frame["block"]["number"] == all_ways.truth.head.number


async def test_objects_come_and_go(all_ways: Joined) -> None:
    client = all_ways.client()
    await all_ways.subscribed(client, A)
    all_ways.block({A: Change(set={"1": {"value": None, "inner": {"b": [1, "é"]}}})})
    all_ways.block({A: Change(patch={"1": {"value": "new"}}, remove=["0"])})
    all_ways.block({A: Change(set={"0": {"value": "back"}}, remove=["1"])})
    await all_ways.converged()
    assert client.replica.states[A.name] == {"0": {"value": "back"}}


async def test_a_reorganisation_is_one_more_message_with_a_proof(all_ways: Joined) -> None:
    client = all_ways.client()
    await all_ways.subscribed(client, A, 1)
    await all_ways.subscribed(client, B, 2)
    all_ways.set_value("wrong", A)
    all_ways.reorg(1, {A: Change(patch={"0": {"value": "right"}})})
    await all_ways.converged()
    frame = client.replica.blocks[-1]
    assert len(frame["rollback"]["dropped"]) == 1
    assert all("checksum" in change for change in frame["changes"])
    assert len(frame["changes"]) == 2


async def test_a_chain_that_turned_too_deep_begins_new_epochs(all_ways: Joined) -> None:
    client = all_ways.client()
    await all_ways.subscribed(client, A)
    before = client.replica.places[A.name]
    all_ways.reorg(0, {A: Change(patch={"0": {"value": "anew"}})})
    await all_ways.converged()
    assert client.replica.places[A.name][0] != before[0]
    all_ways.set_value("on", A)
    await all_ways.converged()


async def test_what_can_not_be_is_refused(all_ways: Joined) -> None:
    all_ways.truth.forbidden.add(C.name)
    client = all_ways.client()
    assert await all_ways.subscribed(client, C) == "bad_channel"
    assert await all_ways.subscribed(client, C, 2) == "bad_channel"
    assert await all_ways.subscribed(client, A, 3) == "snapshot"


async def _leave(ways: Joined, client: Client, gateway: int) -> None:
    client.read()
    ways.clients.remove(client)
    ways.gateways[0 if ways.is_direct else gateway].hub.close(client.session)


async def _come_back(ways: Joined, gone: Client, gateway: int, one: Channel = A) -> str:
    client = ways.client(gateway)
    client.read()
    client.replica.states, client.replica.places = gone.replica.states, gone.replica.places
    how = await ways.subscribed(client, one, 9, gone.replica.cursors[one.name])
    ways.set_value("after", one)
    await ways.converged()
    return how


@pytest.mark.parametrize(("missed", "how"), [(0, "resumed"), (30, "resumed"), (RING_ENTRIES + 1, "snapshot")])
@pytest.mark.parametrize("is_warm", [True, False])
async def test_a_client_resumes_at_another_gateway(all_ways: Joined, missed: int, how: str, is_warm: bool) -> None:
    gone = all_ways.client(0)
    await all_ways.subscribed(gone, A)
    keeper = all_ways.client(1 if is_warm else 0)
    await all_ways.subscribed(keeper, A)
    all_ways.set_value("first", A)
    await all_ways.converged()
    await _leave(all_ways, gone, 0)
    for value in range(missed):
        all_ways.set_value(str(value), A)
        if value % 50 == 0:
            await all_ways.settled()
    await all_ways.settled()
    assert await _come_back(all_ways, gone, 1) == how


async def test_a_reorganisation_that_was_missed_is_told_at_another_gateway(all_ways: Joined) -> None:
    gone, keeper = all_ways.client(0), all_ways.client(0)
    await all_ways.subscribed(gone, A)
    await all_ways.subscribed(keeper, A)
    all_ways.set_value("wrong", A)
    await all_ways.converged()
    await _leave(all_ways, gone, 0)
    all_ways.reorg(1, {A: Change(patch={"0": {"value": "right"}})})
    all_ways.set_value("on", A)
    await all_ways.settled()
    back = all_ways.client(1)
    back.replica.states, back.replica.places = gone.replica.states, gone.replica.places
    assert await all_ways.subscribed(back, A, 9, gone.replica.cursors[A.name]) == "resumed"
    await all_ways.converged()
    assert back.replica.blocks[0]["rollback"]["dropped"]


async def test_a_channel_that_nobody_watches_is_closed_and_opens_again(apart: Joined) -> None:
    (writer,) = apart.writers
    client = apart.client(0)
    await apart.subscribed(client, A)
    assert A.name in writer.engine.open
    await _leave(apart, client, 0)
    apart.gateways[0].hub.tick()

    def is_closed() -> bool:
        apart.gateways[0].hub.tick()
        return A.name not in writer.engine.open

    await until(is_closed)
    assert A.name not in writer.ledger.streams
    apart.set_value("meanwhile", A)
    again = apart.client(1)
    assert await apart.subscribed(again, A) == "snapshot"
    apart.set_value("on", A)
    await apart.converged()


# --- what goes wrong ----------------------------------------------------------------------------------


async def _two_clients(ways: Joined) -> list[Client]:
    clients = [ways.client(0), ways.client(1)]
    for number, client in enumerate(clients):
        await ways.subscribed(client, A, 1)
        await ways.subscribed(client, (B, C)[number], 2)
    ways.set_value("before", A, B, C)
    await ways.converged()
    return clients


async def test_another_engine_takes_over_and_the_first_can_not_write(apart: Joined) -> None:
    clients = await _two_clients(apart)
    (first,) = apart.writers
    standby = apart.add_writer()
    await until(lambda: standby.engine.open == first.engine.open)
    assert not standby.leader.is_in_charge
    # As if it slept: it renews nothing, and believes in its lease.
    first.task.cancel()
    token, number = first.leader._token, first.leader._number
    first.leader._token = None
    await until(lambda: standby.leader.is_in_charge)
    assert token is not None
    apart.writers = [standby]
    apart.set_value("of the new one", A, B, C)
    await apart.converged()
    assert apart.make_link is not None
    link = apart.make_link()
    update_head = first.ledger._step(None)
    with pytest.raises(Fenced):
        await link.publish(token, number + 1, update_head)
    assert all(client.replica.states[A.name]["0"]["value"] == "of the new one" for client in clients)


async def test_lines_that_break_leave_no_gap(apart: Joined) -> None:
    clients = await _two_clients(apart)
    for round_ in range(5):
        await _break_lines(apart)
        for value in range(4):
            apart.set_value(f"{round_} {value}", A, B)
    await apart.converged()
    assert all(client.replica.places[A.name][0] == clients[0].replica.places[A.name][0] for client in clients)


async def _break_lines(ways: Joined) -> None:
    assert ways.make_link is not None
    link: Any = ways.make_link()
    if isinstance(link, MemoryLink):
        link.break_lines()
    else:
        where = {"target_nodes": RedisCluster.ALL_NODES} if isinstance(link._nodes.client, RedisCluster) else {}
        await link._nodes.client.client_kill_filter(_type="pubsub", **where)


async def _keys(link: Any) -> list[bytes]:
    where = {"target_nodes": RedisCluster.PRIMARIES} if isinstance(link._nodes.client, RedisCluster) else {}
    pattern = f"{link._prefix.split(':')[0]}:*"
    return [key async for key in link._nodes.client.scan_iter(pattern, count=10_000, **where)]


async def _lose_everything(ways: Joined) -> None:
    assert ways.make_link is not None
    link: Any = ways.make_link()
    if isinstance(link, MemoryLink):
        link.wipe()
    elif keys := await _keys(link):
        await link._nodes.client.delete(*keys)


async def _save(ways: Joined) -> Callable[[], Awaitable[None]]:
    """Return what brings everything back as it is now: a replica that takes over without what was written since."""
    assert ways.make_link is not None
    link: Any = ways.make_link()
    if isinstance(link, MemoryLink):
        restore = link.save()

        async def back() -> None:
            restore()

        return back
    kept = {key: await link._nodes.client.dump(key) for key in await _keys(link)}

    async def put_back() -> None:
        for key in await _keys(link):
            if key not in kept:
                await link._nodes.client.delete(key)
        for key, value in kept.items():
            if value is not None:
                await link._nodes.client.restore(key, 0, value, replace=True)

    return put_back


async def test_a_broker_that_was_emptied_is_filled_again(apart: Joined) -> None:
    clients = await _two_clients(apart)
    epochs = [client.replica.places[A.name][0] for client in clients]
    await _lose_everything(apart)
    apart.set_value("after", A, B, C)
    await apart.converged()
    assert [client.replica.places[A.name][0] for client in clients] != epochs
    apart.set_value("on", A, B, C)
    await apart.converged()


async def test_a_hole_is_filled_from_the_history(apart: Joined) -> None:
    clients = await _two_clients(apart)
    places = [dict(client.replica.places) for client in clients]
    snapshots = [client.replica.snapshots for client in clients]
    await _break_lines(apart)
    # Nobody listens for a moment: what is said now is in the history only.
    for value in range(20):
        apart.set_value(str(value), A, B, C)
    await apart.converged()
    for client, before in zip(clients, places, strict=True):
        assert client.replica.places == {name: (epoch, seq + 20) for name, (epoch, seq) in before.items()}
    assert [client.replica.snapshots for client in clients] == snapshots


async def test_writes_that_are_lost_begin_new_epochs_and_nobody_is_led_back(apart: Joined) -> None:
    clients = await _two_clients(apart)
    (writer,) = apart.writers
    put_back = await _save(apart)
    for value in range(5):
        apart.set_value(str(value), A)
    await apart.converged()
    epochs = [client.replica.places[A.name][0] for client in clients]
    newest = apart.truth.head.number
    run = writer.leader._token
    await put_back()
    await _break_lines(apart)
    # Without a new block: the engine finds out by itself.
    await until(lambda: writer.leader._token not in (run, None))

    def are_told() -> bool:
        for client in clients:
            client.read()
        return all(client.replica.places[A.name][0] not in epochs for client in clients)

    await until(are_told)
    await apart.converged()
    for client in clients:
        told = client.replica.numbers
        assert told == sorted(told)
        assert told[-1] == newest
    apart.set_value("on", A, B, C)
    await apart.converged()


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_every_copy_is_the_truth(apart: Joined, seed: int) -> None:
    """A seeded mix of blocks, reorganisations, clients that come, go and resume elsewhere, and faults."""
    chance = random.Random(seed)
    channels = [channel(number) for number in range(1, 7)]
    gone: list[tuple[Client, Channel]] = []
    request = 100
    for _ in range(120):
        match chance.choices(["block", "reorg", "join", "leave", "back", "fault", "rest"], [50, 4, 12, 6, 6, 3, 12])[0]:
            case "block":
                some = chance.sample(channels, chance.randrange(4))
                apart.block({one: _some_change(chance, apart.truth.state(one.name)) for one in some})
            case "reorg":
                some = chance.sample(channels, 2)
                depth = chance.choice([0, 1, 2, 3])
                apart.reorg(depth, {one: _some_change(chance, apart.truth.state(one.name)) for one in some})
            case "join":
                client = apart.client(chance.randrange(2))
                request += 1
                client.subscribe(chance.choice(channels), request)
            case "leave" if apart.clients:
                client = chance.choice(apart.clients)
                client.read()
                apart.clients.remove(client)
                next(one.hub for one in apart.gateways if client.session in one.hub.sessions).close(client.session)
                if client.replica.cursors:
                    name = next(iter(client.replica.cursors))
                    gone.append((client, next(one for one in channels if one.name == name)))
            case "back" if gone:
                client, one = gone.pop()
                back = apart.client(chance.randrange(2))
                back.replica.states, back.replica.places = client.replica.states, client.replica.places
                request += 1
                back.subscribe(one, request, client.replica.cursors[one.name])
            case "fault":
                await chance.choice([_break_lines, _break_lines, _lose_everything])(apart)
            case "rest":
                await apart.converged()
    await apart.converged()


def _some_change(chance: random.Random, state: dict[str, Any]) -> Change:
    change = Change()
    for key in ("0", "1", "2"):
        roll = chance.random()
        if roll < 0.3:
            change.set[key] = {"value": str(roll), "inner": {"a": chance.randrange(9)}}
        elif roll < 0.7 and key in state:
            change.patch[key] = {"value": str(roll), "block": chance.randrange(99)}
        elif roll < 0.8 and key in state:
            change.remove.append(key)
    return change
