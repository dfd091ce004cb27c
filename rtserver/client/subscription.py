"""What a listener reads from: bounded mailboxes as async iterators, each with its overflow rule.

A `Subscription` conflates: whoever is too slow for a channel gets its newest state once, instead of all the
changes on the way to it. An `EventFeed` loses its oldest events and says how many.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from ..domain.diff import State
from .events import BlockUpdate, Event, Update

__all__ = ["FEED_LIMIT", "QUEUE_LIMIT", "EventFeed", "Subscription"]

# A few minutes of one-second blocks: longer pauses of a listener cost one state instead of memory.
QUEUE_LIMIT: Final = 256
FEED_LIMIT: Final = 4096

T = TypeVar("T")


class _Mailbox(Generic[T]):
    """A bounded queue with one reader and an end."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a queue holds at least one item, got {limit}")
        self._limit = limit
        self._items: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._is_closed = False
        self._error: Exception | None = None

    def put(self, item: T) -> None:
        if self._is_closed:
            return
        if len(self._items) >= self._limit:
            item = self._make_room(item)
        self._items.append(item)
        self._arrived.set()

    def _make_room(self, item: T) -> T:
        raise NotImplementedError

    def end(self, error: Exception | None = None) -> None:
        """Let the reader have what is left, and then the error or the end."""
        if not self._is_closed:
            self._is_closed, self._error = True, error
            self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._is_closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._items.popleft()


class Subscription(_Mailbox[Update]):
    """One channel's updates: `async for update in subscription`.

    The first is the whole state. The iteration ends when it or the client is closed, and raises when the server
    refuses the channel or ends the connection for good. At most `limit` updates wait: one more turns them
    all into a single "snapshot" with the newest state.

    Args:
        name: The channel as it was asked for.
        limit: How many updates may wait.
        on_close: Called once when the listener closes it.
    """

    def __init__(self, name: str, limit: int, on_close: Callable[["Subscription"], None]) -> None:
        super().__init__(limit)
        self.name = name
        self.conflated = 0
        self._on_close = on_close
        self._newest: Update | None = None
        self._opened = asyncio.Event()

    @property
    def channel(self) -> str:
        """Return the server's spelling; the one asked for until the server answered."""
        return self.name if self._newest is None else self._newest.channel

    @property
    def state(self) -> State:
        """Return the newest state, which may be ahead of the updates that still wait."""
        return {} if self._newest is None else self._newest.state

    @property
    def newest(self) -> Update | None:
        """Return the newest update, which may be ahead of those that still wait."""
        return self._newest

    def put(self, item: Update) -> None:
        """Take an update from the client."""
        self._newest = item
        super().put(item)
        self._opened.set()

    def end(self, error: Exception | None = None) -> None:
        """See `_Mailbox.end`."""
        super().end(error)
        self._opened.set()

    def _make_room(self, item: Update) -> Update:
        rollbacks = [waiting.rollback for waiting in (*self._items, item) if waiting.rollback is not None]
        self.conflated += len(self._items)
        self._items.clear()
        return replace(item, kind="snapshot", change=None, rollback=rollbacks[-1] if rollbacks else None)

    async def opened(self) -> None:
        """Wait for the first state; raises what the server refused it with."""
        await self._opened.wait()
        if self._newest is None and self._error is not None:
            raise self._error

    def close(self) -> None:
        """Leave the channel."""
        if not self._is_closed:
            self.end()
            self._on_close(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EventFeed(_Mailbox[T]):
    """Everything that happens to a client, or its blocks alone, in order.

    At most `limit` events wait: one more drops the oldest. `missed` counts them, and the next `BlockUpdate`
    says how many frames were lost before it.
    """

    def __init__(
        self, limit: int, take: Callable[[Event], T | None], on_close: Callable[["EventFeed[T]"], None]
    ) -> None:
        super().__init__(limit)
        self.missed = 0
        self._missed_frames = 0
        self._take = take
        self._on_close = on_close

    def offer(self, event: Event) -> None:
        """Take an event from the client, if it is of the kind that this feed is for."""
        if (item := self._take(event)) is not None:
            self.put(item)

    def _make_room(self, item: T) -> T:
        lost = self._items.popleft()
        self.missed += 1
        self._missed_frames += isinstance(lost, BlockUpdate)
        return item

    async def __anext__(self) -> T:
        item = await super().__anext__()
        if self._missed_frames and isinstance(item, BlockUpdate):
            missed, self._missed_frames = self._missed_frames, 0
            return replace(item, missed=missed)
        return item

    def close(self) -> None:
        """Hear no more."""
        if not self._is_closed:
            self.end()
            self._on_close(self)
