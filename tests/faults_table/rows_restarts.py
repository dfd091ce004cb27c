"""Rows of the server and its store: stopped, killed, started elsewhere on the chain; locked, full and deleted files."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from contextlib import closing
from pathlib import Path

from .row import Row
from .stage import Outcome, Stage
from .told import a_frame_a_block, resumed, started_anew

__all__ = ["ROWS"]

_WRITTEN = "rtserver_store_errors_total"


async def _stopped(stage: Stage) -> Outcome:
    await stage.kept()
    stage.begin()
    await stage.stop()
    await stage.blocks(5)
    stage.over()
    stage.launch()
    return await stage.right()


async def _killed(stage: Stage) -> Outcome:
    await stage.kept()
    stage.begin()
    # Told to clients, and perhaps never kept.
    await stage.blocks()
    stage.kill()
    await stage.blocks(5)
    stage.over()
    stage.launch()
    return await stage.right()


async def _stopped_across_a_reorg(stage: Stage) -> Outcome:
    await stage.blocks(5)
    await stage.right()
    await stage.kept()
    stage.begin()
    await stage.stop()
    await stage.lab.node.rpc("anvil_reorg", [3, []])
    await stage.blocks(5)
    stage.over()
    stage.launch()
    return await stage.right()


async def _store_locked(stage: Stage) -> Outcome:
    before = await stage.metric(_WRITTEN)
    with closing(sqlite3.connect(stage.store, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        stage.begin()
        outcome = await stage.each(5)
        await stage.rises(_WRITTEN, before)
        other.execute("ROLLBACK")
    await stage.blocks()
    await stage.right()
    await stage.kept()
    return outcome


async def _store_full(stage: Stage) -> Outcome:
    assert stage.server is not None
    before = await stage.metric(_WRITTEN)
    # No file may grow any more: the kernel refuses what the process writes.
    resource.prlimit(stage.server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    stage.begin()
    outcome = await stage.each(5)
    await stage.rises(_WRITTEN, before)
    resource.prlimit(stage.server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await stage.blocks()
    await stage.right()
    await stage.kept()
    return outcome


def _delete(store: Path) -> None:
    for file in store.parent.glob(store.name + "*"):
        file.unlink()


async def _store_deleted(stage: Stage) -> Outcome:
    await stage.kept()
    stage.begin()
    await asyncio.to_thread(_delete, stage.store)
    await stage.each(3)
    stage.kill()
    await stage.blocks()
    stage.over()
    stage.launch()
    return await stage.right()


ROWS = (
    Row(
        key="server_stopped",
        fault="rtserver is stopped (SIGTERM) and started again, 5 blocks later",
        sees="`bye`; after the reconnect it resumes: one change over all that was missed",
        run=_stopped,
        check=resumed,
    ),
    Row(
        key="server_killed",
        fault="rtserver is killed (SIGKILL) and started again, 5 blocks later",
        sees="after the reconnect a snapshot of each channel under a new epoch",
        run=_killed,
        check=started_anew,
    ),
    Row(
        key="server_stopped_reorg",
        fault="rtserver is stopped, 3 of its blocks are reorganised, and it is started again",
        sees="`bye`; after the reconnect a snapshot of each channel under a new epoch",
        run=_stopped_across_a_reorg,
        check=started_anew,
    ),
    Row(
        key="store_locked",
        fault="another process locks the store's file",
        sees="nothing: checkpoints wait",
        run=_store_locked,
        check=a_frame_a_block,
    ),
    Row(
        key="store_full",
        fault="the disk under the store and the log is full",
        sees="nothing: checkpoints wait, lost lines are counted",
        run=_store_full,
        check=a_frame_a_block,
    ),
    Row(
        key="store_deleted",
        fault="the store's files are deleted, and rtserver is killed and started again",
        sees="nothing; after the reconnect a snapshot of each channel under a new epoch",
        run=_store_deleted,
        check=started_anew,
    ),
)
