"""Rows of engines and gateways, and of their lines to Redis."""

from __future__ import annotations

import asyncio

from faults.relay import Relay
from redis.asyncio import Redis

from .crowd import Crowd
from .row import Row
from .stage import Outcome
from .stage_one import OneRedis
from .told import is_only_frames, new_epochs, only_frames

__all__ = ["ROWS"]

_BLOCKS = 3
# One more than a channel's history in Redis, and its ring at a gateway, hold.
_RING_CHANGES = 257
# What one subscriber may have unread; the kernel holds some megabytes more.
_UNREAD_BYTES = 1 << 20
_FILLER_BYTES = 16 << 20


async def _silent(stage: OneRedis) -> Outcome:
    stage.begin()
    # Both gateways' steps, and both engines' wishes.
    assert stage.line.mute() >= len(stage.gateways) + 2
    await stage.blocks()
    outcome = await stage.right()
    # The engines' lines to wishes are as dead: what is wished for now is found all the same.
    owner = f"owner:{stage.chain}:{stage.lab.owners[-1]}"
    client = stage.watchers[0].client
    subscription = await client.subscribe(owner, queue_limit=1)
    await subscription.opened()
    subscription.close()
    return outcome


async def _overrun(stage: OneRedis) -> Outcome:
    """The first gateway sleeps for longer than the history is, and Redis gives up on its subscription."""
    gateway, other = stage.gateways[0], stage.watchers[1]
    step = await _last_step(stage)
    await stage.redis.command("CONFIG", "SET", "client-output-buffer-limit", f"pubsub {_UNREAD_BYTES} 0 0")
    stage.begin()
    gateway.freeze()
    try:
        # First, as the kernel alone could hold these few steps and hand them over when the gateway wakes. A step that
        # everyone has had already says nothing to anybody.
        async with Redis.from_url(stage.redis.url) as redis:
            sent = 0
            while await _subscribers(stage) == len(stage.gateways):
                assert sent < _FILLER_BYTES, "Redis did not give up"
                for _ in range(64):
                    sent += len(step)
                    await redis.spublish(_steps(stage), step)
        await stage.empty(_RING_CHANGES, other)
    finally:
        gateway.thaw()
        await stage.redis.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60")
    stage.over()
    await stage.blocks(is_timed=False)
    return await stage.right()


def _steps(stage: OneRedis) -> str:
    return f"rtserver:{{{stage.chain}}}:steps"


async def _subscribers(stage: OneRedis) -> int:
    async with Redis.from_url(stage.redis.url) as redis:
        return sum(count for _, count in await redis.pubsub_shardnumsub(_steps(stage)))


async def _last_step(stage: OneRedis) -> bytes:
    """Return the notification of the newest block, as it was."""
    async with Redis.from_url(stage.redis.url) as redis, redis.pubsub() as pubsub:
        await pubsub.ssubscribe(_steps(stage))
        await stage.blocks()
        async with asyncio.timeout(30):
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
                if message is not None and stage.lab.head.hash.encode() in message["data"]:
                    break
    await stage.right()
    return bytes(message["data"])


def _one_slept(outcome: Outcome) -> None:
    """Clients of the one get what is too old for changes as snapshots, under the same epochs; others notice nothing."""
    slept, other = outcome.seen
    assert slept.snapshots >= 1 and (slept.epochs, slept.mismatches) == (0, 0), slept
    is_only_frames(other, outcome.blocks)
    assert other.frames == outcome.blocks, other


async def _killed(stage: OneRedis) -> Outcome:
    leader = await stage.leader()
    stage.begin()
    leader.child.kill_now()
    await stage.blocks(is_timed=False)
    outcome = await stage.right()
    leader.start()
    return outcome


async def _two_leaders(stage: OneRedis) -> Outcome:
    leader, standby = await stage.leader(), await stage.standby()
    stage.begin()
    leader.freeze()
    try:
        await stage.blocks(is_timed=False)
        assert await stage.leader() is standby
        await stage.right()
    finally:
        leader.thaw()
    await stage.rises(leader, "rtserver_fenced_total", 0)
    await stage.blocks(_BLOCKS)
    outcome = await stage.right()
    assert await stage.leader() is standby
    assert (await leader.chain())["inCharge"] is False
    return outcome


async def _gateway_killed(stage: OneRedis) -> Outcome:
    first, second = stage.gateways
    async with Relay(first.port) as front:
        async with Crowd(front, stage.channels[1:-1], stage.crowd).running() as crowd:
            await crowd.right(stage)
            crowd.begin()
            stage.begin()
            first.child.kill_now()
            front.targets.append(second.port)
            await stage.blocks(_BLOCKS, is_timed=False)
            counts = await crowd.right(stage, have_come_back=True)
        first.start()
        await stage.lives(first)
    await stage.right()
    return Outcome(
        seen=tuple(watcher.seen for watcher in stage.watchers),
        right_s=counts.pop("seconds"),
        blocks=_BLOCKS,
        counts=counts,
    )


def _resumed_elsewhere(outcome: Outcome) -> None:
    """Everybody came back to the other gateway and went on from the cursor."""
    counts = outcome.counts
    assert counts["resumed"] >= counts["clients"] and counts["snapshots"] == 0, counts
    is_only_frames(outcome.seen[1], outcome.blocks)


ROWS = (
    Row(
        key="subscriptions_silent",
        fault="all subscriptions to Redis stay open and say nothing more (half-open)",
        sees="a frame for the next block, late: a line is taken anew after 3 s of silence",
        run=_silent,
        check=only_frames,
    ),
    Row(
        key="reader_overrun",
        fault="a gateway sleeps for 257 changes, one more than the history holds, and Redis closes its subscription (`client-output-buffer-limit`)",  # noqa: E501
        sees="at that gateway a snapshot of what changed as often, under the same epoch; at others nothing",
        run=_overrun,
        check=_one_slept,
    ),
    Row(
        key="engine_killed",
        fault="the engine in charge is killed; the standby takes over",
        sees="a snapshot of each channel under a new epoch",
        run=_killed,
        check=new_epochs,
    ),
    Row(
        key="two_leaders",
        fault="the engine in charge sleeps (SIGSTOP) through its lease, and wakes up when the standby leads",
        sees="a snapshot of each channel under a new epoch; of what the one that woke up writes, nothing",
        run=_two_leaders,
        check=new_epochs,
    ),
    Row(
        key="gateway_killed",
        fault="a gateway is killed with all of its clients; they come to another one",
        sees="after the reconnect it resumes: one change over all that was missed",
        run=_gateway_killed,
        check=_resumed_elsewhere,
    ),
)
