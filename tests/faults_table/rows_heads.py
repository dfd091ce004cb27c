"""Rows of sockets and heads: cut, silent, half-open, refused, missed, and in no order."""

from __future__ import annotations

import asyncio
from functools import partial

from chain.following import head_of
from faults.actions import Answer, Drop, Duplicate, Reorder

from .row import Row
from .stage import Outcome, Setup, Stage
from .told import a_frame_a_block, at_most_a_frame_a_block, new_epochs

__all__ = ["ROWS"]

_PUSH = "eth_subscription"
_TWO = Setup(endpoints=2)


async def _socket_reset(stage: Stage) -> Outcome:
    stage.begin()
    stage.first.cut()
    await stage.blocks()
    outcome = await stage.right()
    await stage.announced()
    return outcome


async def _heads_go_silent(stage: Stage) -> Outcome:
    stage.begin()
    silent = stage.first.add(Drop(), _PUSH)
    await stage.blocks()
    outcome = await stage.right()
    # Until the subscription is given up for its silence and opened anew, heads are asked for.
    opened = stage.first.methods["eth_subscribe"]
    await asyncio.gather(stage.each(3), stage.first.asked("eth_subscribe", opened + 1, within_s=60))
    silent.remove()
    await stage.announced()
    return outcome


async def _half_open(stage: Stage) -> Outcome:
    stage.begin()
    stage.first.freeze()
    await stage.blocks(3)
    await stage.stale()
    stage.over()
    stage.first.thaw()
    outcome = await stage.right()
    await stage.announced()
    return outcome


async def _no_subscriptions(stage: Stage) -> Outcome:
    stage.begin()
    refused = [proxy.add(Answer(-32601, "subscriptions are not supported"), "eth_subscribe") for proxy in stage.proxies]
    for proxy in stage.proxies:
        proxy.cut()
    outcome = await stage.each(4)
    for rule in refused:
        rule.remove()
    await stage.announced()
    # Back to being told: nobody is asked for the head any more.
    for proxy in stage.proxies:
        proxy.reset_counts()
    await stage.each(2)
    assert all("eth_getBlockByNumber" not in [call.method for call in proxy.calls if call.params[0] == "latest"]
               for proxy in stage.proxies)  # fmt: skip
    return outcome


async def _missed_blocks(stage: Stage, count: int) -> Outcome:
    stage.begin()
    await stage.first.down()
    await stage.blocks(20)
    await stage.empty(count - 20)
    stage.over()
    await stage.first.up()
    outcome = await stage.right()
    await stage.announced()
    return outcome


async def _disorder(stage: Stage) -> Outcome:
    stage.begin()
    rules = [proxy.add(Duplicate(), _PUSH) for proxy in stage.proxies]
    rules.append(stage.second.add(Reorder(2), _PUSH, chance=0.5))
    old = await head_of(stage.lab.node)
    for index in range(10):
        await stage.blocks()
        outcome = await stage.right()
        if index % 3 == 0:
            # Heads that go backward, and come again.
            await stage.first.announce(old)
            await stage.second.announce(old)
    for rule in rules:
        rule.remove()
    return outcome


ROWS = (
    Row(
        key="ws_reset",
        fault="the node's WebSocket is reset",
        sees="nothing: a frame for the next block",
        run=_socket_reset,
        check=a_frame_a_block,
    ),
    Row(
        key="ws_silent",
        fault="the node's WebSocket stays open and says nothing",
        sees="a frame for the next block, late: heads are asked for after 2.5 block times of silence",
        run=_heads_go_silent,
        check=a_frame_a_block,
    ),
    Row(
        key="half_open",
        fault="the only endpoint takes everything and answers nothing, for 10 s",
        sees="heartbeats with the head's age; then one frame",
        run=_half_open,
        check=at_most_a_frame_a_block,
    ),
    Row(
        key="polling",
        fault="no WebSocket endpoint takes a subscription",
        sees="a frame for each block, by polling; pushed again once one does",
        run=_no_subscriptions,
        check=a_frame_a_block,
        setup=_TWO,
    ),
    Row(
        key="missed_20",
        fault="the only endpoint refuses connections while 20 blocks come",
        sees="one frame over all that was missed",
        run=partial(_missed_blocks, count=20),
        check=at_most_a_frame_a_block,
    ),
    Row(
        key="missed_300",
        fault="the same for 300 blocks, more than are linked (256)",
        sees="a snapshot of each channel under a new epoch",
        run=partial(_missed_blocks, count=300),
        check=new_epochs,
    ),
    Row(
        key="disorder",
        fault="heads come twice, late, in another order, or are old ones",
        sees="nothing: a frame for each block",
        run=_disorder,
        check=a_frame_a_block,
        setup=_TWO,
    ),
)
