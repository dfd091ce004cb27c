"""A client that takes down what it is told, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rtserver.client import Beat, BlockUpdate, Connected, Disconnected, Event, Mismatch, RtClient, Update

__all__ = ["Seen", "SharedWatcher", "Watcher", "watching"]

_FEED = 1 << 16


@dataclass(slots=True)
class Seen:
    """What a client was told, counted."""

    frames: int = 0  # block frames that moved the head; what becomes known of a block later has frames of its own
    rollbacks: int = 0  # of these, with a rollback
    snapshots: int = 0  # whole states, one a channel
    epochs: int = 0  # of these, under a new epoch
    resumed: int = 0  # channels that went on after a reconnect without a snapshot
    byes: int = 0
    reconnects: int = 0
    mismatches: int = 0  # checksums that were not the copy's
    oldest_ms: int = 0  # the greatest age of the head in a heartbeat


class Watcher:
    """One client's view of a chain.

    Args:
        client: Connected.
        chain: The chain's id.
    """

    def __init__(self, client: RtClient, chain: int) -> None:
        self.client = client
        self.seen = Seen()
        self.changed_at = time.monotonic()
        # Whether the last thing told was a block's frame that left nothing open: then all has to be exact.
        self.is_exact = False
        self._chain = str(chain)
        self._head = f"head:{chain}"
        self._epochs: dict[str, str] = {}
        self._awaited: set[str] = set()
        self._news = asyncio.Event()

    def begin(self) -> None:
        """Count from here."""
        self.seen = Seen()

    @property
    def head(self) -> str:
        """Return the hash of the block that the copies are of."""
        state = self.client.states.get(self._head, {})
        return str(state["head"]["hash"]) if "head" in state else ""

    @property
    def is_whole(self) -> bool:
        """Return whether the connection is open and every channel has been answered on it."""
        return self.client.is_connected and not self._awaited

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was told makes a condition true."""
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def news(self) -> None:
        """Wait until something more is told."""
        self._news.clear()
        await self._news.wait()

    async def follow(self) -> None:
        """Take down what comes, until the client ends."""
        async for event in self.client.events(limit=_FEED):
            self._take(event)
            self._news.set()

    def _take(self, event: Event) -> None:
        seen = self.seen
        match event:
            case BlockUpdate():
                seen.frames += any(update.channel == self._head for update in event.changes)
                seen.rollbacks += event.rollback is not None
                self._awaited = set(event.inexact)
                self.is_exact = not self._awaited
                self.changed_at = time.monotonic()
            case Update():
                seen.snapshots += event.kind == "snapshot"
                seen.resumed += event.kind == "resumed"
                seen.epochs += self._epochs.get(event.channel, event.epoch) != event.epoch
                self._epochs[event.channel] = event.epoch
                self._awaited.discard(event.channel)
                self.is_exact = False
                self.changed_at = time.monotonic()
            case Connected():
                seen.reconnects += event.again
                self._awaited = set(self.client.states)
                self.is_exact = False
            case Disconnected():
                seen.byes += event.reason.startswith("bye")
            case Mismatch():
                seen.mismatches += 1
            case Beat():
                if self._chain in event.heads:
                    seen.oldest_ms = max(seen.oldest_ms, event.heads[self._chain].age_ms)
            case _:
                pass


class SharedWatcher(Watcher):
    """The view of a chain that engines share: a frame is of one engine's channels, and leaves the others open."""

    def __init__(self, client: RtClient, chain: int) -> None:
        super().__init__(client, chain)
        self._joining: set[str] = set()
        # The block of the last frame that told what there was to tell of a channel.
        self._told: dict[str, str] = {}

    @property
    def is_whole(self) -> bool:
        """Return whether the connection is open and every channel has been answered on it."""
        return self.client.is_connected and not self._joining

    def _take(self, event: Event) -> None:
        super()._take(event)
        match event:
            case BlockUpdate():
                told = self.client.states.keys() - event.inexact
                self._told |= dict.fromkeys(told, event.block.hash)
                # Once the frames of all engines have said the same block.
                self.is_exact = all(self._told.get(name) == self.head for name in self.client.states)
            case Update():
                self._joining.discard(event.channel)
                self._told.pop(event.channel, None)
            case Connected():
                self._joining = set(self.client.states)
                self._told.clear()
            case _:
                pass


@asynccontextmanager
async def watching(
    url: str, chain: int, channels: Sequence[str], kind: type[Watcher] = Watcher
) -> AsyncIterator[Watcher]:
    """Connect a client to channels of a chain, its head among them."""
    async with RtClient(url) as client:
        watcher = kind(client, chain)
        async with asyncio.TaskGroup() as group:
            follower = group.create_task(watcher.follow())
            for channel in channels:
                # Nobody reads the subscription: the feed of events tells all of it in order.
                await client.subscribe(channel, queue_limit=1)
            yield watcher
            follower.cancel()
