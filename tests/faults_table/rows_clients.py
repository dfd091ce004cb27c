"""Rows of the client's own way to the server."""

from __future__ import annotations

import asyncio

from .row import Row
from .stage import Outcome, Setup, Stage
from .told import resumed

__all__ = ["ROWS"]

# One more than a channel's ring holds.
_RING_CHANGES = 257


async def _cut(stage: Stage) -> Outcome:
    stage.begin()
    stage.relay.cut()
    await stage.blocks()
    return await stage.right()


async def _asleep(stage: Stage) -> Outcome:
    """Nothing is read and nothing answered, for more changes than the ring holds; then it wakes."""
    stage.begin()
    stage.relay.hold()
    first = await stage.metric("rtserver_head_number")
    for _ in range(_RING_CHANGES):
        # Each is a change of its own to the head's channel: the next one comes when it is out.
        await stage.empty(1)
        await stage.rises("rtserver_head_number", stage.lab.head.number - 1)
    assert await stage.metric("rtserver_head_number") == first + _RING_CHANGES
    await stage.blocks(3)
    # Nobody answered its heartbeats: the server has let it go.
    async with asyncio.timeout(60):
        while await stage.connections():
            await asyncio.sleep(0.02)
    stage.over()
    # What was on the way did not wait for it.
    stage.relay.cut()
    stage.relay.release()
    return await stage.right()


def _woke(outcome: Outcome) -> None:
    """What the ring still had is resumed; what it had not, the head's channel, is a snapshot. Epochs stay."""
    seen = outcome.seen
    assert (seen.reconnects, seen.epochs) == (1, 0), seen
    assert seen.snapshots >= 1, seen


ROWS = (
    Row(
        key="client_cut",
        fault="the client's socket is reset",
        sees="after the reconnect it resumes: one change over all that was missed",
        run=_cut,
        check=resumed,
    ),
    Row(
        key="client_asleep",
        fault="the client sleeps for 257 changes, one more than a channel's ring",
        sees="after the reconnect a snapshot of what changed as often, and one change of what did not",
        run=_asleep,
        check=_woke,
        setup=Setup(limits="pong_s = 5.0"),
    ),
)
