"""Keeping a process running, with small programs in place of rtserver: what ends, hangs, never starts or won't end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from rtserver.obs.metrics import Metrics
from rtserver.supervisor.child import Child, Pace

QUICK = Pace(look_s=0.02, misses=2, pause_s=0.01, longest_pause_s=0.04, stop_s=0.5)

# What a process of ours does: it takes its settings, says where it is, and lives until it is told to end.
LIVES = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
assert sys.stdin.readline() == "given\\n"
print(json.dumps({"opsUrl": "http://here"}), flush=True)
while True:
    time.sleep(60)
"""


class Stage:
    """A child and what decides about it."""

    def __init__(self, program: str, pace: Pace = QUICK) -> None:
        self.stop = asyncio.Event()
        self.metrics = Metrics()
        self.answers = True
        self.child = Child(
            "one", "gateway", [sys.executable, "-c", program], b"given", self._is_alive, self.stop, self.metrics, pace
        )

    async def _is_alive(self, ops_url: str) -> bool:
        assert ops_url == "http://here"
        return self.answers

    async def until_running(self, after_restarts: int = 0) -> int:
        async with asyncio.timeout(30):
            while not (self.child.state == "running" and self.child.restarts >= after_restarts):
                await asyncio.sleep(0.01)
        assert self.child.pid is not None
        return self.child.pid

    def sample(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"process": "one"})


async def test_it_lives_until_all_ends() -> None:
    stage = Stage(LIVES)
    running = asyncio.create_task(stage.child.run())
    await stage.until_running()
    assert stage.child.ops_url == "http://here"
    assert stage.sample("rtserver_process_up") == 1
    stage.stop.set()
    assert await running == 0
    assert (stage.child.state, stage.child.pid, stage.child.restarts) == ("ended", None, 0)
    assert stage.sample("rtserver_process_up") == 0


async def test_what_is_killed_is_started_again() -> None:
    stage = Stage(LIVES)
    running = asyncio.create_task(stage.child.run())
    pids = [await stage.until_running()]
    for restarts in (1, 2):
        kill(pids[-1])
        pids.append(await stage.until_running(after_restarts=restarts))
    assert len(set(pids)) == 3
    assert stage.sample("rtserver_process_restarts_total") == 2
    stage.stop.set()
    assert await running == 0


async def test_what_does_not_answer_is_killed_and_started_again() -> None:
    stage = Stage(LIVES)
    running = asyncio.create_task(stage.child.run())
    first = await stage.until_running()
    stage.answers = False
    async with asyncio.timeout(30):
        while stage.child.restarts == 0:
            await asyncio.sleep(0.01)
    stage.answers = True
    assert await stage.until_running(after_restarts=1) != first
    stage.stop.set()
    assert await running == 0


async def test_what_never_serves_ends_all_with_its_status() -> None:
    assert await Stage("import sys; sys.exit(2)").child.run() == 2
    assert await Stage("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").child.run() == 1
    # Neither does one that takes for ever to start.
    assert await Stage("import time; time.sleep(60)", Pace(start_s=0.2)).child.run() == 1


async def test_what_served_once_is_started_again_also_when_it_does_not_start(tmp_path: Path) -> None:
    """Settings that were right once are right: what is wrong now, such as a Redis that is away, passes."""
    there = tmp_path / "there"
    there.touch()
    stage = Stage(f"import os, sys\nif not os.path.exists({str(there)!r}): sys.exit(2)\n{LIVES}")
    running = asyncio.create_task(stage.child.run())
    first = await stage.until_running()
    there.unlink()
    kill(first)
    async with asyncio.timeout(30):
        while stage.child.restarts < 4:
            await asyncio.sleep(0.01)
    there.touch()
    await stage.until_running(after_restarts=4)
    stage.stop.set()
    assert await running == 0


async def test_what_will_not_end_is_killed() -> None:
    stage = Stage(LIVES.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN"))
    running = asyncio.create_task(stage.child.run())
    await stage.until_running()
    stage.stop.set()
    assert await running == 1


async def test_one_that_pauses_does_not_hold_up_the_end() -> None:
    stage = Stage(LIVES, Pace(pause_s=600))
    running = asyncio.create_task(stage.child.run())
    kill(await stage.until_running())
    async with asyncio.timeout(30):
        while stage.child.restarts == 0:
            await asyncio.sleep(0.01)
    stage.stop.set()
    assert await running == 0


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
