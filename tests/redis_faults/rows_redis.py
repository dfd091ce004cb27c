"""Rows of Redis itself: killed with and without its data, failed over, full, frozen."""

from __future__ import annotations

import asyncio
import shutil

from broker.redis_server import RedisServer
from faults.relay import Relay
from redis.asyncio import Redis

from .row import Row
from .stage import Outcome
from .stage_one import OneRedis, make_redis
from .told import frames_or_new_epochs, new_epochs

__all__ = ["ROWS"]

_BLOCKS = 3


async def _killed(stage: OneRedis) -> Outcome:
    stage.begin()
    stage.redis.kill()
    await stage.blocks(_BLOCKS)
    await stage.stale()
    await stage.redis.start()
    stage.over()
    return await stage.right()


async def _emptied(stage: OneRedis) -> Outcome:
    stage.begin()
    stage.redis.kill()
    await stage.blocks(_BLOCKS)
    await stage.stale()
    await asyncio.to_thread(shutil.rmtree, stage.redis.folder / "appendonlydir")
    await stage.redis.start()
    stage.over()
    return await stage.right()


async def _failed_over(stage: OneRedis) -> Outcome:
    """A replica is promoted that never heard of the blocks that clients have already."""
    master = stage.redis
    async with Relay(master.port) as between:
        replica = await asyncio.to_thread(make_redis, stage.folder, "--replicaof", f"127.0.0.1 {between.port}")
        await replica.start()
        try:
            await _synchronized(replica)
            stage.begin()
            between.hold()
            await stage.blocks(_BLOCKS)
            await stage.right()
            master.kill()
            await replica.command("REPLICAOF", "NO", "ONE")
        except BaseException:
            await replica.end()
            raise
    stage.redis = replica
    # What a name or a proxy does when it leads to the new master.
    stage.line.lead(replica.port)
    stage.over()
    await stage.blocks(is_timed=False)
    return await stage.right()


async def _synchronized(replica: RedisServer) -> None:
    async with Redis.from_url(replica.url) as redis, asyncio.timeout(60):
        while (await redis.info("replication"))["master_link_status"] != "up":
            await asyncio.sleep(0.02)


async def _full(stage: OneRedis) -> Outcome:
    leader = await stage.leader()
    stage.begin()
    await stage.redis.command("CONFIG", "SET", "maxmemory", "1")
    await stage.blocks(_BLOCKS)
    async with asyncio.timeout(60):
        while (await leader.chain()).get("queuedSteps", 0) < 1:
            await asyncio.sleep(0.02)
    await stage.stale()
    await stage.redis.command("CONFIG", "SET", "maxmemory", "0")
    stage.over()
    return await stage.right()


async def _slow(stage: OneRedis) -> Outcome:
    stage.begin()
    stage.redis.freeze()
    await stage.blocks(_BLOCKS)
    await stage.stale()
    stage.redis.thaw()
    stage.over()
    return await stage.right()


_AGE = "heartbeats and REST with the head's age; "
_AGAIN = "then frames of what was missed; new epochs if the engine in charge is not back within a second"

ROWS = (
    Row(
        key="redis_killed",
        fault="Redis is killed, and started again with its data (AOF)",
        sees=_AGE + _AGAIN,
        run=_killed,
        check=frames_or_new_epochs,
    ),
    Row(
        key="redis_emptied",
        fault="Redis is killed, and comes back empty",
        sees=_AGE + "then a snapshot of each channel under a new epoch",
        run=_emptied,
        check=new_epochs,
    ),
    Row(
        key="redis_failed_over",
        fault="Redis fails over to a replica that lacks the last 3 blocks",
        sees="a snapshot of each channel under a new epoch",
        run=_failed_over,
        check=new_epochs,
    ),
    Row(
        key="redis_full",
        fault="Redis is full (`maxmemory` reached, `noeviction`): the engine's writes are refused",
        sees=_AGE + _AGAIN,
        run=_full,
        check=frames_or_new_epochs,
    ),
    Row(
        key="redis_slow",
        fault="Redis is stopped (SIGSTOP) for 10 s",
        sees=_AGE + _AGAIN,
        run=_slow,
        check=frames_or_new_epochs,
    ),
)
