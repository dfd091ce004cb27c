"""Processes of the fan-out benches: each on a core of its own, stopped while it is not its turn.

Starts and ends them, and speaks with them in lines.
"""

import asyncio
import json
import os
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

__all__ = ["Talker", "cores", "pinned", "raise_file_limit", "start_talker"]

# A result with every broadcast is one long line.
_LINE_BYTES: Final = 1 << 26
# More than this no size of the bench needs: two sockets a client, nine servers.
_FILES: Final = 400_000


def cores() -> tuple[int, int]:
    """Return the core of the servers and that of the load: the first and the last that we may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


def pinned(core: int) -> list[str]:
    """Return the words before a command that keep it on a core, and end it when we are killed."""
    words = []
    if shutil.which("setpriv"):
        words += ["setpriv", "--pdeathsig", "KILL"]
    if shutil.which("taskset"):
        words += ["taskset", "-c", str(core)]
    return words


def raise_file_limit() -> None:
    """Allow as many open files as the benches need, or as many as we may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, max(_FILES, hard)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Talker:
    """A child that takes lines and answers with JSON lines; `pid` is the process that is measured."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, log: Path) -> None:
        self._process = process
        self._log = log
        self.name = name
        self.pid = process.pid

    def tell(self, line: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def hear(self, event: str, timeout_s: float) -> dict[str, Any]:
        """Return the next event, which must be of this kind.

        Raises:
            RuntimeError: It ended, said something else, or nothing in time; the message has its last words.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise RuntimeError(f"{self.name}: no {event} within {timeout_s:.0f} s; {self._said()}") from None
        if not line:
            raise RuntimeError(f"{self.name} ended before {event}; {self._said()}")
        found: dict[str, Any] = json.loads(line)
        if found["event"] != event:
            raise RuntimeError(f"{self.name}: expected {event}, got {line[:300]!r}")
        return found

    async def ask(self, line: str, event: str, timeout_s: float) -> dict[str, Any]:
        """Send a line and return its answer; raises as `hear`."""
        self.tell(line)
        return await self.hear(event, timeout_s)

    def stop(self) -> None:
        """Let the measured process sleep, whatever its timers say."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        os.kill(self.pid, signal.SIGCONT)

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-1500:].strip() or "no last words"


@asynccontextmanager
async def start_talker(
    command: Sequence[str], *, name: str, core: int, log: Path, environment: dict[str, str] | None = None
) -> AsyncIterator[Talker]:
    """Start a child on a core and end it afterwards; what it writes to its standard error goes to `log`."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *pinned(core),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **(environment or {})},
            limit=_LINE_BYTES,
        )
    talker = Talker(process, name, log)
    try:
        yield talker
    finally:
        # Its children are ended by itself when its input ends: so first that, then force.
        with suppress(ProcessLookupError):
            os.kill(talker.pid, signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(2):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
