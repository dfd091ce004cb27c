"""Rows of endpoints: busy, slow, behind, astray, answering nonsense, and with limits of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from chain.following import head_of, mine_other
from faults.actions import (
    Action,
    Answer,
    CutOff,
    Delay,
    LogCap,
    Reply,
    Truncate,
    WrongId,
    busy,
)
from faults.proxy import FaultProxy

from .row import Row
from .stage import Outcome, Setup, Stage
from .told import a_frame_a_block, one_rollback, resumed

__all__ = ["ROWS"]

_TWO = Setup(endpoints=2)
# Blocks that one query for logs may span.
_CAP = 5


async def _preferred(stage: Stage) -> FaultProxy:
    """Return the endpoint that reads go to, once none rests from an earlier turn."""
    await stage.rested()
    for proxy in stage.proxies:
        proxy.reset_counts()
    await stage.each(1)
    return max(stage.proxies, key=lambda proxy: proxy.methods["eth_call"])


async def _busy(stage: Stage) -> Outcome:
    preferred = await _preferred(stage)
    stage.begin()
    rule = preferred.add(busy(20), via="http")
    await stage.each(2)
    hits = rule.hits
    outcome = await stage.each(4)
    assert rule.hits == hits >= 1, "left alone for as long as it said"
    rule.remove()
    return outcome


async def _slow(stage: Stage) -> Outcome:
    # What is slow is known from what was usual.
    await stage.each(24)
    preferred = await _preferred(stage)
    stage.begin()
    rule = preferred.add(Delay(2.0), via="http")
    outcome = await stage.each(5)
    rule.remove()
    return outcome


async def _behind(stage: Stage, lag: int) -> Outcome:
    """The second endpoint is a node that stands still at its block."""
    async with stage.twin() as late:
        old = await head_of(late)
        stage.second.switch(late.http_url, late.ws_url)
        stage.second.cut()
        await stage.announced()
        await stage.empty(lag - 1)
        await stage.blocks()
        await stage.right()
        stage.begin()
        for _ in range(5):
            await stage.second.announce(old)
            await stage.blocks()
            outcome = await stage.right()
        await _home(stage)
    return outcome


async def _another_fork(stage: Stage) -> None:
    """The second endpoint's node leaves the chain, and goes higher, before anyone asks."""
    fork = await stage.stack.enter_async_context(stage.twin())
    await stage.blocks()
    await mine_other(fork, 3)
    stage.second.switch(fork.http_url, fork.ws_url)
    stage.fork = fork


async def _astray(stage: Stage) -> Outcome:
    assert stage.fork is not None
    stage.begin()
    for _ in range(5):
        await mine_other(stage.fork, 3)
        await stage.blocks()
        outcome = await stage.right()
    return outcome


async def _home(stage: Stage) -> None:
    """Bring the second endpoint back to our node."""
    node = stage.lab.node
    stage.second.switch(node.http_url, node.ws_url)
    stage.second.cut()
    await stage.announced()
    await stage.blocks()
    await stage.right()


_NONSENSE: Sequence[Action] = (
    Reply(b"<html>", 502), Reply(b'{"jsonrpc":"2.0","id"'), Reply(b"[]"), Truncate(), WrongId(), CutOff(),
)  # fmt: skip


async def _nonsense(stage: Stage) -> Outcome:
    preferred = await _preferred(stage)
    stage.begin()
    for action in _NONSENSE:
        rule = preferred.add(action, via="http")
        await stage.blocks()
        outcome = await stage.right()
        rule.remove()
    return outcome


async def _nonsense_alone(stage: Stage) -> Outcome:
    stage.begin()
    for action in _NONSENSE:
        stage.first.add(action, via="http", times=2)
        await stage.blocks()
        outcome = await stage.right()
    return outcome


async def _header_not_found(stage: Stage) -> Outcome:
    stage.begin()
    for _ in range(3):
        stage.first.add(Answer(-32000, "header not found"), "eth_call", "eth_getLogs", times=2)
        await stage.blocks()
        outcome = await stage.right()
    return outcome


async def _refuse_pinning(stage: Stage) -> None:
    words = "invalid argument 1: json: cannot unmarshal object into Go value of type string"
    stage.first.add(Answer(-32602, words), "eth_call", when=lambda call: isinstance(call.params[1], dict))
    stage.first.add(
        Answer(-32602, "invalid params: blockHash parameter not supported"),
        "eth_getLogs",
        when=lambda call: "blockHash" in call.params[0],
    )


async def _no_pinning(stage: Stage) -> Outcome:
    await stage.blocks(3)
    await stage.right()
    stage.begin()
    await stage.blocks()
    await stage.lab.node.rpc("anvil_reorg", [2, []])
    stage.over()
    return await stage.right()


async def _cap_logs(stage: Stage) -> None:
    stage.first.add(LogCap(max_blocks=_CAP, code=-32614, wide="eth_getLogs is limited to a {max_blocks} range"))


async def _capped_logs(stage: Stage) -> Outcome:
    """What happened while it was away is asked for in pieces, and the past of positions, too."""
    await stage.kept()
    stage.begin()
    await stage.stop()
    await stage.blocks(20)
    stage.over()
    asked = len(stage.first.calls)
    stage.launch()
    outcome = await stage.right()
    widths = [
        int(call.params[0]["toBlock"], 16) - int(call.params[0]["fromBlock"], 16) + 1
        for call in stage.first.calls[asked:]
        if call.method == "eth_getLogs" and "fromBlock" in call.params[0]
    ]
    assert max(widths) > _CAP and sum(width <= _CAP for width in widths) >= 4, widths
    await _fees_known(stage)
    await stage.announced()
    return outcome


async def _fees_known(stage: Stage) -> None:
    def all_known() -> bool:
        states: Any = stage.watcher.client.states
        entries = [entry for name, state in states.items() if name.startswith("owner:") for entry in state.values()]
        return bool(entries) and all(entry["fees0"] is not None for entry in entries)

    async with asyncio.timeout(60):
        await stage.watcher.until(all_known)


ROWS = (
    Row(
        key="busy",
        fault="one of two endpoints answers 429 with `Retry-After`",
        sees="nothing: the other is asked, this one left alone for as long as it said",
        run=_busy,
        check=a_frame_a_block,
        setup=_TWO,
    ),
    Row(
        key="slow",
        fault="one of two endpoints takes 2 s for an answer",
        sees="nothing: the other is asked as well, and first from then on",
        run=_slow,
        check=a_frame_a_block,
        setup=_TWO,
    ),
    Row(
        key="behind_5",
        fault="one of two endpoints is 5 blocks behind",
        sees="nothing",
        run=partial(_behind, lag=5),
        check=a_frame_a_block,
        setup=_TWO,
    ),
    Row(
        key="behind_100",
        fault="one of two endpoints is 100 blocks behind",
        sees="nothing",
        run=partial(_behind, lag=100),
        check=a_frame_a_block,
        setup=_TWO,
    ),
    Row(
        key="other_fork",
        fault="one of two endpoints is on another, higher fork",
        sees="nothing: it is not believed",
        run=_astray,
        check=a_frame_a_block,
        setup=_TWO,
        prepare=_another_fork,
    ),
    Row(
        key="nonsense",
        fault="one of two endpoints answers malformed JSON, wrong ids, half an answer",
        sees="nothing: the other is asked",
        run=_nonsense,
        check=a_frame_a_block,
        setup=_TWO,
    ),
    Row(
        key="nonsense_alone",
        fault="the only endpoint does so, twice a block",
        sees="nothing: it is asked again",
        run=_nonsense_alone,
        check=a_frame_a_block,
    ),
    Row(
        key="header_not_found",
        fault="the only endpoint says `header not found` of the block that it announced",
        sees="nothing: it is asked again",
        run=_header_not_found,
        check=a_frame_a_block,
    ),
    Row(
        key="no_pinning",
        fault="the only endpoint can't read by block hash; a reorganisation of 2 blocks",
        sees="one frame with `rollback`",
        run=_no_pinning,
        check=one_rollback,
        prepare=_refuse_pinning,
    ),
    Row(
        key="capped_logs",
        fault="rtserver is stopped for 20 blocks; its endpoint refuses logs of more than 5 at once",
        sees="`bye`; after the reconnect it resumes: one change over all that was missed",
        run=_capped_logs,
        check=resumed,
        prepare=_cap_logs,
    ),
)
