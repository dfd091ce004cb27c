"""One process that is kept running: started, watched, started again after a pause, ended in order."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import structlog

from ..config import Role
from ..obs.metrics import Metrics

__all__ = ["Child", "Pace", "State"]

log = structlog.get_logger(__name__)

# The one line that a process says: where its health is.
_LINE_BYTES: Final = 64 * 1024
State = Literal["starting", "running", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long is waited, in seconds."""

    # From the start until it serves: an engine asks each endpoint for its chain first.
    start_s: float = 120.0
    # Between two looks at whether it answers, and how many in a row it may miss: a loop that stands still for half a
    # minute has clients that see nothing, and gets new ones all the same.
    look_s: float = 10.0
    misses: int = 3
    # The pause before it is started again: doubled each time, until it has lived for a while.
    pause_s: float = 0.5
    longest_pause_s: float = 30.0
    calm_s: float = 60.0
    # All of a process' shutdown takes five; a machine that is busy is no reason to kill one that says bye.
    stop_s: float = 15.0


class Child:
    """One of the supervisor's processes.

    Args:
        name: Its name in logs, health and metrics.
        role: What it does.
        command: What is started.
        given: One line for its standard input, which stays open for as long as we live.
        is_alive: Asks the process at an address whether it lives; False also where it doesn't answer in time.
        stop: Set when all is to end.
        metrics: Where it is shown whether it serves.
        pace: How long is waited.
    """

    def __init__(
        self,
        name: str,
        role: Role,
        command: Sequence[str],
        given: bytes,
        is_alive: Callable[[str], Awaitable[bool]],
        stop: asyncio.Event,
        metrics: Metrics,
        pace: Pace | None = None,
    ) -> None:
        self.name: Final = name
        self.role: Final = role
        self._command = command
        self._given = given
        self._is_alive = is_alive
        self._stop = stop
        self._pace = pace or Pace()
        self._has_served = False
        self._up = metrics.process_up.labels(name)
        self._restarted = metrics.process_restarts.labels(name)
        self.state: State = "ended"
        self.pid: int | None = None
        # Where its health is, while it runs.
        self.ops_url: str | None = None
        self.restarts = 0

    async def run(self) -> int:
        """Keep it running until all is to end.

        Returns:
            0 where it ended in order. Otherwise its exit status, at least 1: it ended before it ever served, which
            ends all, or it had to be killed at the end.
        """
        pace = self._pace
        loop = asyncio.get_running_loop()
        pause_s = pace.pause_s
        while True:
            began = loop.time()
            code = await self._live()
            if self._stop.is_set():
                return 0 if code == 0 else 1
            if not self._has_served:
                log.error("process did not start", process=self.name, status=code)
                return code if code > 0 else 1
            if loop.time() - began > pace.calm_s:
                pause_s = pace.pause_s
            # Some chance in it: what makes several end at once is not met by all of them again at once.
            wait_s = pause_s * random.uniform(0.5, 1.0)
            pause_s = min(2 * pause_s, pace.longest_pause_s)
            log.warning("process ended, to be started again", process=self.name, status=code, in_s=round(wait_s, 2))
            self.restarts += 1
            self._restarted.inc()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stop.wait()
                    return 0

    async def _live(self) -> int:
        """Start it and wait for its end; return its exit status, negative for a signal."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            # Ctrl-C in the terminal reaches the supervisor alone, which passes it on once.
            start_new_session=True,
        )
        self.state, self.pid = "starting", process.pid
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._watch(process)), group.create_task(self._end_with_all(process))]
                code = await process.wait()
                for task in tasks:
                    task.cancel()
        finally:
            if process.returncode is None:
                process.kill()
            self.state, self.pid, self.ops_url = "ended", None, None
            self._up.set(0)
        return code

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Hear that it serves, then ask it again and again whether it lives; kill it where it doesn't."""
        pace = self._pace
        assert process.stdin is not None and process.stdout is not None
        try:
            async with asyncio.timeout(pace.start_s):
                process.stdin.write(self._given + b"\n")
                with suppress(ConnectionError):
                    await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            log.error("process did not serve in time, killed", process=self.name, pid=process.pid)
            _kill(process)
            return
        if not line:
            return  # it ended, or is about to
        self.ops_url = str(json.loads(line)["opsUrl"])
        self.state, self._has_served = "running", True
        self._up.set(1)
        missed = 0
        while missed < pace.misses:
            await asyncio.sleep(pace.look_s)
            missed = 0 if await self._is_alive(self.ops_url) else missed + 1
        log.error("process does not answer, killed", process=self.name, pid=process.pid, looks=missed)
        _kill(process)

    async def _end_with_all(self, process: asyncio.subprocess.Process) -> None:
        await self._stop.wait()
        with suppress(ProcessLookupError):
            process.terminate()
        await asyncio.sleep(self._pace.stop_s)
        log.error("process did not end in time, killed", process=self.name, pid=process.pid)
        _kill(process)


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
