"""A chain that several engines share by its channels' names: what a client is told is right, whoever says it."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator

import pytest
from hub.stage import CHAIN, Client, channel

from rtserver.broker.redis_link import RedisBroker
from rtserver.domain.diff import Change
from rtserver.domain.ids import Address
from rtserver.domain.shards import Shards, is_in, parse_shards, shard_of
from rtserver.protocols.channels import HeadChannel, OwnerChannel, PricesChannel, RewardsChannel

from .joined import until
from .sharing import Shared, shared

CHANNELS = [channel(number) for number in range(1, 9)]
# Of each shard of two.
EVEN = [one for one in CHANNELS if shard_of(one.name, 2) == 0]
ODD = [one for one in CHANNELS if shard_of(one.name, 2) == 1]
A, B = EVEN[0], ODD[0]


@pytest.fixture(params=["memory", "redis", "cluster"])
async def ways(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[Shared]:
    """Two gateways of a chain that is spread over two shards."""
    prefix = f"t{secrets.token_hex(6)}"
    async with shared(request.param, 2, lambda: RedisBroker(urls[request.param], prefix)) as one:
        one.add_gateway()
        one.add_gateway()
        yield one


async def _clients(ways: Shared) -> list[Client]:
    await ways.settled()
    clients = [ways.client(0), ways.client(1)]
    for client in clients:
        for number, one in enumerate(CHANNELS, 1):
            await ways.subscribed(client, one, number)
    ways.set_value("before", *CHANNELS)
    await ways.converged()
    return clients


def test_a_name_has_one_shard_and_what_is_answered_together_has_the_same() -> None:
    assert EVEN and ODD
    owner = Address("0x" + "ab" * 20)
    for count in (2, 3, 4, 64):
        assert shard_of(OwnerChannel(CHAIN, owner).name, count) == shard_of(RewardsChannel(CHAIN, owner).name, count)
        assert shard_of(HeadChannel(CHAIN).name, count) == shard_of(PricesChannel(CHAIN).name, count)
    counts = [0] * 4
    for number in range(4000):
        counts[shard_of(channel(number).name, 4)] += 1
    assert min(counts) > 800
    # Engines and gateways of other versions have to agree.
    assert [shard_of(f"position:1:uniswap-v3:{number}", 4) for number in range(8)] == [0, 2, 0, 2, 1, 3, 1, 3]


def test_a_shard_is_one_of_a_number() -> None:
    assert parse_shards("2/4") == Shards((2,), 4)
    assert parse_shards("any/3") == Shards((0, 1, 2), 3)
    for wrong in ("", "1", "4/4", "-1/4", "0/0", "0/65", "any", "any/x", "1/2/3", "all/2"):
        with pytest.raises(ValueError, match="shard"):
            parse_shards(wrong)


async def test_each_engine_opens_and_publishes_its_own(ways: Shared) -> None:
    engines = [ways.share("0/2"), ways.share("1/2")]
    clients = await _clients(ways)
    assert engines[0].engine.open == {one.name for one in EVEN}
    assert engines[1].engine.open == {one.name for one in ODD}
    ways.set_value("x", *CHANNELS)
    await ways.converged()
    for client in clients:
        frames = [one for one in client.replica.blocks if one["block"]["number"] == ways.truth.head.number]
        told = [frozenset(change["channel"] for change in frame["changes"]) for frame in frames]
        assert sorted(map(len, told)) == sorted([len(EVEN), len(ODD)])
        assert {frame["shard"] for frame in frames} == {"0/2", "1/2"}
        assert all(is_in(name, frame["shard"]) for frame, names in zip(frames, told, strict=True) for name in names)
        assert frozenset().union(*told) == {one.name for one in CHANNELS}


async def test_what_one_shard_says_is_of_its_own_block(ways: Shared) -> None:
    """An engine that hangs leaves its channels at their block, with their age; the others go on."""
    engines = [ways.share("0/2"), ways.share("1/2")]
    (client, other) = await _clients(ways)
    before = ways.truth.head.number
    ways.writers.remove(engines[1])  # type: ignore[arg-type]  # it is told of no block
    for value in range(3):
        ways.set_value(str(value), A)
    hub = ways.gateways[0].hub

    def is_told() -> bool:
        client.read()
        return bool(client.replica.states[A.name]["0"]["value"] == "2")

    await until(is_told)
    head = hub.head(CHAIN)
    assert head is not None and head.number == before
    streams = {one: hub.peek(one) for one in (A, B)}
    assert {one: hub.head_of(stream).number for one, stream in streams.items() if stream is not None} == {
        A: before + 3,
        B: before,
    }
    # Whoever joins now gets each state under its own block.
    late = ways.client(0)
    for number, one in enumerate((A, B), 1):
        await ways.subscribed(late, one, number)
    assert late.replica.numbers == [before + 3, before]
    engines[1].engine.start()
    await ways.converged()
    assert other.replica.states[A.name] == ways.truth.state(A.name)


async def test_a_reorganisation_is_told_by_each_shard(ways: Shared) -> None:
    ways.share("0/2")
    ways.share("1/2")
    clients = await _clients(ways)
    ways.set_value("wrong", A, B)
    ways.reorg(1, {A: Change(patch={"0": {"value": "right"}}), B: Change(patch={"0": {"value": "right"}})})
    await ways.converged()
    for client in clients:
        frames = [frame for frame in client.replica.blocks if "rollback" in frame]
        assert len(frames) == 2
        assert sum(len(frame["changes"]) for frame in frames) == len(CHANNELS)


async def test_a_standby_takes_the_shard_that_has_lost_its_engine(ways: Shared) -> None:
    engines = [ways.share("0/2"), ways.share("1/2")]
    clients = await _clients(ways)
    standby = ways.share("any/2")
    await until(lambda: len(standby.engine.open) == len(CHANNELS))
    places = [dict(client.replica.places) for client in clients]
    await engines[0].crash()
    ways.writers.remove(engines[0])  # type: ignore[arg-type]
    await until(lambda: standby.leader(0).is_in_charge)
    ways.set_value("of the standby", A)
    ways.set_value("of both", *CHANNELS)
    await ways.converged()
    assert not standby.leader(1).is_in_charge
    for client, before in zip(clients, places, strict=True):
        assert client.replica.places[A.name][0] != before[A.name][0]
        assert client.replica.places[B.name][0] == before[B.name][0]


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happens_to_engines_every_copy_is_the_truth(ways: Shared, seed: int) -> None:
    chance = random.Random(seed)
    ways.share("0/2")
    ways.share("any/2")
    await _clients(ways)
    for _ in range(8):
        for _ in range(chance.randrange(6)):
            ways.set_value(str(chance.random()), *chance.sample(CHANNELS, chance.randrange(len(CHANNELS))))
        if chance.random() < 0.3:
            ways.reorg(chance.randrange(3))
        one = chance.choice(ways.sharers)
        await one.crash()
        ways.sharers.remove(one)
        ways.writers.remove(one)  # type: ignore[arg-type]
        ways.share(chance.choice(["0/2", "any/2", "any/2"]))
        if not any(len(sharer.tasks) == 2 for sharer in ways.sharers):
            ways.share("1/2")
        await ways.converged()
