"""Rows of a Redis Cluster: a master is killed, a master hangs, a slot moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from broker.redis_cluster import until_true
from broker.redis_server import RedisServer

from .row import Row
from .stage import Outcome
from .stage_cluster import NODE_TIMEOUT_S, OnCluster
from .told import frames_or_new_epochs

__all__ = ["ROWS"]

_BLOCKS = 3


async def _fails_over(stage: OnCluster, how: Callable[[RedisServer], None]) -> tuple[RedisServer, Outcome]:
    """Lose the chain's master, make blocks, and wait until its replica has told them. Return the lost one, too."""
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
)
