"""A real redis-server of a test's own: it may be killed, stopped, emptied or filled."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from rtserver.demo.ports import free_port
from rtserver.demo.process import Child

__all__ = ["RedisServer"]


class RedisServer:
    """redis-server on a free port; unless an option says otherwise, what it forgets is gone."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._fixed = options
        self._child: Child | None = None
        self._has_port = False
        self.port = free_port()

    @property
    def url(self) -> str:
        """Return where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _options(self) -> list[str]:
        """Return what else it is told; called once a start."""
        return list(self._fixed)

    async def start(self) -> None:
        """Start it, with what is on the disk, and wait until it answers.

        A port that is free may be taken a moment later: until it has had one, it tries others.
        """
        while not await self._is_started():
            self.port = free_port()
        self._has_port = True

    async def _is_started(self) -> bool:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._child = Child([*command, *self._options()], log=self.folder / f"redis-{self.port}.log")
        deadline = time.monotonic() + 30
        async with Redis.from_url(self.url) as redis:
            while True:
                with suppress(RedisError, OSError):
                    await redis.ping()
                    return True
                if not self._has_port and self._child.returncode is not None and "in use" in self._child.said():
                    return False
                assert time.monotonic() < deadline and self._child.returncode is None, self._child.said()
                await asyncio.sleep(0.01)

    @property
    def is_up(self) -> bool:
        """Return whether the process lives."""
        return self._child is not None and self._child.returncode is None

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill_now()

    def freeze(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    async def command(self, *words: str) -> object:
        async with Redis.from_url(self.url) as redis:
            return await redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def end(self) -> None:
        if self._child is not None:
            await self._child.end(timeout_s=3.0)
