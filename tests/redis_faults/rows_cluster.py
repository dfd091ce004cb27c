"""Rows of a Redis Cluster: a master is lost, a slot moves, and one of the nodes that a shared chain is on is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from broker.redis_cluster import takes_writes, until_true
from broker.redis_server import RedisServer

from .row import Row
from .stage import Outcome
from .stage_cluster import NODE_TIMEOUT_S, OnCluster
from .told import frames_or_new_epochs

__all__ = ["ROWS"]

_BLOCKS = 3


async def _fails_over(stage: OnCluster, how: Callable[[RedisServer], None]) -> tuple[RedisServer, Outcome]:
    """Lose the chain's master, make blocks, and wait until its replica has told them. Return the lost one, too."""
    await stage.share(False)
    replica, master = await stage.replica(), await stage.nodes.master_of(stage.key)

    async def has_taken_over() -> bool:
        return await stage.nodes.master_of(stage.key, replica) is replica

    stage.begin()
    how(master)
    await stage.blocks(_BLOCKS, is_timed=False)
    await until_true(has_taken_over)
    counts = {"s until the replica took over": round(stage.waited_s, 2)}
    return master, replace(await stage.right(), counts=counts)


async def _master_killed(stage: OnCluster) -> Outcome:
    master, outcome = await _fails_over(stage, RedisServer.kill)
    # It comes back as a replica of the one that was its own.
    await master.start()
    await stage.replica()
    await stage.right()
    return outcome


async def _master_hangs(stage: OnCluster) -> Outcome:
    master, outcome = await _fails_over(stage, RedisServer.freeze)
    # It wakes up, and takes itself for the master until it hears that it is none.
    master.thaw()
    await stage.replica()
    await stage.blocks()
    await stage.right()
    return outcome


async def _slot_moves(stage: OnCluster) -> Outcome:
    await stage.share(False)
    source = await stage.nodes.master_of(stage.key)
    target, *_ = await stage.others(source)
    stage.begin()
    keys = await stage.nodes.begin_move(stage.key, target)
    # All but the histories: a step needs keys of both nodes.
    first = [key for key in keys if ":h:" not in key]
    await stage.nodes.move(source, target, first)
    await stage.blocks(_BLOCKS)
    await until_true(stage.is_queueing)
    await stage.nodes.move(source, target, [key for key in keys if key not in first])
    await stage.nodes.end_move(stage.key, target)
    stage.over()
    outcome = await stage.right()
    # Back to the node that has a replica.
    await stage.nodes.move(target, source, await stage.nodes.begin_move(stage.key, source))
    await stage.nodes.end_move(stage.key, source)
    await stage.blocks()
    await stage.right()
    return outcome


async def _shard_away(stage: OnCluster) -> Outcome:
    await stage.share(True)
    # Else no node serves anything while one is away that has no replica.
    await stage.nodes.configure("cluster-require-full-coverage", "no")
    node, head = await stage.nodes.master_of(stage.shard_key), stage.lab.head.hash
    lost = stage.of_shard(stage.watchers[0].client.states)
    assert lost and len(lost) < len(stage.channels)

    async def are_of_head() -> bool:
        answers = [await gateway.snapshot(name) for gateway in stage.gateways for name in lost]
        return all(answer["block"]["hash"] == head for answer in answers)

    # Also those that the block did not change.
    await until_true(are_of_head)
    held = [{name: watcher.client.states[name] for name in lost} for watcher in stage.watchers]
    stage.begin()
    node.kill()
    await stage.blocks(_BLOCKS)
    await stage.lab.catch_up()
    for watcher in stage.watchers:
        async with asyncio.timeout(60):
            await watcher.until(lambda watcher=watcher: watcher.head == stage.lab.head.hash)  # type: ignore[misc]
            while await stage.differences(watcher, but=lost):
                await watcher.news()
    went_on_s, age_ms = stage.waited_s, stage.outage_ms // 4
    await stage.aged(age_ms)
    for gateway, watcher, before in zip(stage.gateways, stage.watchers, held, strict=True):
        assert {name: watcher.client.states[name] for name in lost} == before
        for name in lost:
            await stage.serves(gateway, watcher, name, head, age_ms)
    await node.start()
    stage.over()
    await until_true(partial(takes_writes, node))
    counts = {
        "channels of the shard": len(lost),
        "s until the others were right": round(went_on_s, 2),
        "s until the node took writes": round(stage.waited_s, 2),
    }
    outcome = replace(await stage.right(), counts=counts)
    await stage.nodes.configure("cluster-require-full-coverage", "yes")
    return outcome


def _one_shard_began_anew(outcome: Outcome) -> None:
    """The other shard's channels were told by frames; those of the node began anew, as it had lost them."""
    for seen in outcome.seen:
        assert (seen.reconnects, seen.rollbacks, seen.mismatches, seen.resumed) == (0, 0, 0, 0), seen
        # A snapshot of each of the shard's channels, and of no other.
        assert seen.snapshots == seen.epochs == outcome.counts["channels of the shard"], seen
        assert 1 <= seen.frames <= outcome.blocks, seen


_FAILS_OVER = (
    "frames of what was missed, once the replica is in charge; new epochs if it lacks what was written last, or the "
    "engine in charge is not back within a second"
)

ROWS = (
    Row(
        key="cluster_master_killed",
        fault=f"Cluster: the master with the chain's slot is killed, and its replica takes over (`cluster-node-timeout` {NODE_TIMEOUT_S} s)",  # noqa: E501
        sees=_FAILS_OVER,
        run=_master_killed,
        check=frames_or_new_epochs,
    ),
    Row(
        key="cluster_master_hangs",
        fault="Cluster: that master hangs (SIGSTOP), its replica takes over, and it wakes up later",
        sees=_FAILS_OVER,
        run=_master_hangs,
        check=frames_or_new_epochs,
    ),
    Row(
        key="cluster_slot_moves",
        fault="Cluster: the chain's slot moves to another node, with blocks while half of it is there",
        sees="nothing until the slot has moved; then frames of what was missed, or new epochs if the engine in charge lost its lease meanwhile",  # noqa: E501
        run=_slot_moves,
        check=frames_or_new_epochs,
    ),
    Row(
        key="cluster_shard_away",
        fault="Cluster, two engines share a chain (`--shard`): the node of one shard is killed, and comes back empty (`cluster-require-full-coverage no`)",  # noqa: E501
        sees="frames of the other shard's channels, as ever; of this one's REST with their age, and heartbeats; then a snapshot of each under a new epoch",  # noqa: E501
        run=_shard_away,
        check=_one_shard_began_anew,
    ),
)
