"""A child process that never outlives us: started in a session of its own, ended in our order.

A Ctrl-C in the terminal reaches only us, and if we are killed, the kernel kills the child (on Linux).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["Child"]

_POLL_S: Final = 0.01
_PR_SET_PDEATHSIG: Final = 1


class Child:
    """A started process whose output goes to a file."""

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
                preexec_fn=_die_with_parent(),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs or is stopped by SIGSTOP."""
        return self._process.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process if it still runs."""
        if self.returncode is None:
            self._process.send_signal(number)

    async def wait(self, *, poll_s: float = _POLL_S) -> int:
        """Return the exit code once the process ends."""
        while (code := self.returncode) is None:
            await asyncio.sleep(poll_s)
        return code

    async def end(self, *, timeout_s: float) -> None:
        """Ask it to end, and kill it if it does not; frozen processes wake to hear it."""
        self.send_signal(signal.SIGCONT)
        self.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while self.returncode is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
            await asyncio.sleep(_POLL_S)

    def kill_now(self) -> None:
        """Kill it and wait, without an event loop: the last resort, when even `end` was cancelled."""
        if self.returncode is None:
            self._process.kill()
            self._process.wait()

    def said(self) -> str:
        """Return the end of what it wrote."""
        with contextlib.suppress(FileNotFoundError):
            return self._log.read_text(errors="replace")[-1500:].strip() or "it said nothing"
        return "it said nothing"


def _die_with_parent() -> Callable[[], None] | None:
    """Return what a child does between fork and exec so that even our SIGKILL ends it (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    # Loaded here, in the parent: after fork only async-signal-safe work is sound.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange
