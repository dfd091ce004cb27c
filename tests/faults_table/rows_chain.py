"""Rows of the node and its chain: stopped, restarted, reorganised, rolled back; its clock; chains beside it."""

from __future__ import annotations

import asyncio
from functools import partial

from faults.actions import Delay
from faults.proxy import FaultProxy

from rtserver.demo.node import AnvilNode
from rtserver.demo.ports import free_port
from rtserver.demo.settings_file import settings_toml

from .row import Row
from .stage import Outcome, Stage
from .told import a_frame_a_block, at_most_a_frame_a_block, new_epochs, one_rollback

__all__ = ["ROWS"]


async def _stopped(stage: Stage) -> Outcome:
    stage.begin()
    stage.lab.node.freeze()
    try:
        await stage.stale()
    finally:
        stage.lab.node.thaw()
    stage.over()
    await stage.blocks()
    return await stage.right()


async def _restarted(stage: Stage) -> Outcome:
    stage.begin()
    await stage.lab.node.restart()
    stage.over()
    await stage.blocks()
    outcome = await stage.right()
    await stage.announced()
    return outcome


async def _crashed(stage: Stage) -> Outcome:
    node = stage.lab.node
    # What it comes back with.
    await node.restart()
    await stage.announced()
    await stage.blocks(4)
    await stage.right()
    stage.begin()
    await node.kill()
    await node.restart()
    stage.over()
    outcome = await stage.right()
    await stage.announced()
    return outcome


async def _reorg(stage: Stage, depth: int) -> Outcome:
    # An empty block that is mined again in the same second is the same block: what differs goes first.
    traded = max(depth - 60, 1)
    await stage.blocks(traded)
    await stage.empty(depth - traded)
    await stage.right()
    stage.begin()
    await stage.lab.node.rpc("anvil_reorg", [depth, []])
    stage.over()
    return await stage.right()


async def _rolled_back(stage: Stage) -> Outcome:
    await stage.blocks(3)
    await stage.right()
    stage.begin()
    await stage.lab.node.rpc("anvil_rollback", [3])
    stage.over()
    return await stage.right()


async def _clock_jumps(stage: Stage) -> Outcome:
    stage.begin()
    await stage.lab.node.rpc("evm_increaseTime", [hex(30 * 24 * 3600)])
    return await stage.each(3)


async def _two_more_chains(stage: Stage) -> None:
    """A chain whose node is not there, and one whose node takes 2 s for an answer."""
    lab = stage.lab
    slow = await stage.stack.enter_async_context(AnvilNode(stage.toolchain, chain_id=31338))
    proxy = await stage.stack.enter_async_context(FaultProxy(slow.http_url, slow.ws_url))
    proxy.add(Delay(2.0))
    dead = free_port()
    for chain, ws, http in (
        (31338, proxy.ws_url, proxy.http_url),
        (31339, f"ws://127.0.0.1:{dead}", f"http://127.0.0.1:{dead}"),
    ):
        text = settings_toml(lab.deployment, ws_url=ws, http_url=http, name=f"chain-{chain}")
        text = text[: text.index("[store]")].replace(f"id = {lab.deployment.chain_id}", f"id = {chain}")
        await asyncio.to_thread(stage.append_settings, text)


async def _beside_others(stage: Stage) -> Outcome:
    stage.begin()
    return await stage.each(5)


ROWS = (
    Row(
        key="node_stopped",
        fault="the node is stopped (SIGSTOP) for 10 s",
        sees="heartbeats with the head's age; then a frame for the next block",
        run=_stopped,
        check=at_most_a_frame_a_block,
    ),
    Row(
        key="node_restarted",
        fault="the node is restarted with its chain",
        sees="nothing: a frame for the next block",
        run=_restarted,
        check=at_most_a_frame_a_block,
    ),
    Row(
        key="node_crashed",
        fault="the node is killed and comes back without its last 4 blocks, and no new one",
        sees="one frame with `rollback`, once the step back has lasted",
        run=_crashed,
        check=one_rollback,
    ),
    *(
        Row(
            key=f"reorg_{depth}",
            fault=f"a reorganisation of {depth} block{'s' * (depth > 1)}",
            sees="one frame with `rollback`",
            run=partial(_reorg, depth=depth),
            check=one_rollback,
        )
        for depth in (1, 5, 64)
    ),
    Row(
        key="reorg_too_deep",
        fault="a reorganisation of 80 blocks, deeper than is remembered (64)",
        sees="a snapshot of each channel under a new epoch",
        run=partial(_reorg, depth=80),
        check=new_epochs,
    ),
    Row(
        key="rolled_back",
        fault="the chain loses 3 blocks and gets no new one",
        sees="one frame with `rollback`, once the step back has lasted",
        run=_rolled_back,
        check=one_rollback,
    ),
    Row(
        key="clock_jumps",
        fault="the chain's clock jumps by 30 days",
        sees="nothing",
        run=_clock_jumps,
        check=a_frame_a_block,
    ),
    Row(
        key="other_chains",
        fault="of three chains one is dead and one takes 2 s for an answer",
        sees="on the third: nothing, a frame for each block",
        run=_beside_others,
        check=a_frame_a_block,
        prepare=_two_more_chains,
    ),
)
