"""Many clients behind a load balancer, one channel each, and what became of them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from faults.relay import Relay
from faults_table.watcher import Watcher

from rtserver.client import RtClient

from .stage import Stage

__all__ = ["Crowd"]

# So many open their sockets at a time: the clients share a loop, and each waits for its welcome.
_AT_ONCE = 100
_OPEN_S = 60.0
_PATIENCE_S = 120.0


class Crowd:
    """The clients.

    Args:
        front: Where they connect.
        channels: Owners; each client watches one of them.
        count: How many clients.
    """

    def __init__(self, front: Relay, channels: Sequence[str], count: int) -> None:
        self._front = front
        self._channels = channels
        self._count = count
        self._watchers: list[Watcher] = []
        self._began = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Crowd]:
        """Open them all."""
        url = f"ws://127.0.0.1:{self._front.port}/ws"
        turn = asyncio.Semaphore(_AT_ONCE)
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(asyncio.TaskGroup())

            async def enter(index: int) -> None:
                async with turn:
                    client = await stack.enter_async_context(RtClient(url, open_timeout_s=_OPEN_S))
                    watcher = Watcher(client, 0)
                    followers.append(group.create_task(watcher.follow()))
                    await client.subscribe(self._channels[index % len(self._channels)], queue_limit=1)
                    self._watchers.append(watcher)

            followers: list[asyncio.Task[None]] = []
            await asyncio.gather(*(enter(index) for index in range(self._count)))
            try:
                yield self
            finally:
                for follower in followers:
                    follower.cancel()

    def begin(self) -> None:
        """Count from here."""
        self._began = time.monotonic()
        for watcher in self._watchers:
            watcher.begin()

    async def right(self, stage: Stage, *, have_come_back: bool = False) -> dict[str, Any]:
        """Wait until each client's copy is what the second gateway says of the head, which is compared with the chain.

        With `have_come_back`, each has to have lost its connection since `begin`. Returns the seconds from there until
        the last one's copy was right, and how they came back.
        """
        await stage.lab.catch_up()
        watcher = stage.watchers[1]
        async with asyncio.timeout(_PATIENCE_S):
            await watcher.until(lambda: watcher.is_whole and watcher.head == stage.lab.head.hash)
            assert not await stage.differences(watcher)
            for one in self._watchers:
                await one.until(lambda one=one: _is_right(one, watcher, have_come_back))  # type: ignore[misc]
        seen = [one.seen for one in self._watchers]
        assert not any(one.mismatches or one.rollbacks for one in seen)
        return {
            "clients": len(seen),
            "resumed": sum(one.resumed for one in seen),
            "snapshots": sum(one.snapshots for one in seen),
            "reconnects": sum(one.reconnects for one in seen),
            "seconds": max(one.changed_at for one in self._watchers) - self._began,
        }


def _is_right(one: Watcher, other: Watcher, has_come_back: bool) -> bool:
    states = one.client.states
    if not one.is_whole or not states or (has_come_back and not one.seen.reconnects):
        return False
    return all(state == other.client.states.get(name) for name, state in states.items())
