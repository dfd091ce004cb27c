"""The broker within one process: what Redis does for it, said in Python. Passes the same suite.

For tests and simulations that need neither processes nor a network. Serving from one process needs no broker at all.
"""

import asyncio
import copy
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from ..domain.chain import Header
from .ports import BrokerAway, Fenced, Interests, Place, Reading
from .steps import Entry, Heard, Held, Snapshot, Step, encode_entry

__all__ = ["MemoryBroker", "MemoryLink"]

# What a listener may have unread; then its line breaks, as Redis breaks that of a client that doesn't read.
_MAX_UNREAD: Final = 4096

# All that is written, but for the clock that generations are counted by.
_WRITTEN: Final = (
    "_owner",
    "_lease",
    "_run",
    "_number",
    "_is_complete",
    "_header",
    "_at",
    "_channels",
    "_wishes",
    "_vacant_at",
)

_T = TypeVar("_T")


class MemoryBroker:
    """All chains of one process.

    Args:
        clock: Seconds; what leases and wishes expire by.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._links: dict[tuple[int, int, int], MemoryLink] = {}

    def chain(self, chain_id: int, shard: int = 0, shards: int = 1) -> "MemoryLink":
        """Return the link of a chain, or of one of its shards: the same one for all who ask."""
        return self._links.setdefault((chain_id, shard, shards), MemoryLink(self._clock))


class _Channel:
    __slots__ = ("entries", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.entries: deque[Entry] = deque()


class MemoryLink:
    """One chain; see ports.ChainLink."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.is_away = False
        self._listeners: dict[asyncio.Queue[Heard | None], None] = {}
        self._wish_listeners: dict[asyncio.Queue[Sequence[str] | None], None] = {}
        self._generation = 0
        self.wipe()

    # --- faults ---------------------------------------------------------------------------------------

    def wipe(self) -> None:
        """Lose everything but the clock."""
        self._owner = ""
        self._lease: tuple[str, float] = ("", 0.0)
        # When somebody first found that it had run out.
        self._vacant_at: float | None = None
        self._run, self._number, self._is_complete = "", 0, False
        self._header: Header | None = None
        self._at = 0.0
        self._channels: dict[str, _Channel] = {}
        self._wishes: dict[str, tuple[set[str], float, str]] = {}

    def save(self) -> Callable[[], None]:
        """Return what brings back everything as it is now: whoever calls it has lost what was written since."""
        kept = copy.deepcopy({name: getattr(self, name) for name in _WRITTEN})

        def restore() -> None:
            for name, value in copy.deepcopy(kept).items():
                setattr(self, name, value)

        return restore

    def break_lines(self) -> None:
        """End all subscriptions."""
        for queue in self._listeners:
            _drop(queue)
        for wishes in self._wish_listeners:
            _drop(wishes)

    def _check(self) -> None:
        if self.is_away:
            raise BrokerAway("the broker is away")

    # --- the engine's side ----------------------------------------------------------------------------

    async def acquire(self, holder: str, ttl_ms: int) -> str | None:
        """Take the lease; see the port."""
        self._check()
        held, until = self._lease
        now = self._clock()
        if held and held != holder:
            if now < until:
                return None
            # Whoever had it may come back for a while.
            if self._vacant_at is None:
                self._vacant_at = now
            if now - self._vacant_at < ttl_ms / 3000:
                return None
        self._vacant_at = None
        self._generation += 1
        self._owner = f"{self._generation}-{holder}"
        self._lease = (holder, now + ttl_ms / 1000)
        return self._owner

    async def renew(self, token: str, ttl_ms: int, number: int = 0) -> bool:
        """Keep the lease; see the port."""
        self._check()
        if token != self._owner:
            return False
        if number and (self._run != token or self._number < number):
            return False
        self._lease = (token.partition("-")[2], self._clock() + ttl_ms / 1000)
        self._vacant_at = None
        for queue in list(self._wish_listeners):
            _put(queue, ())
        if self._run:
            self._tell(Heard(run=self._run, number=self._number, is_beat=True))
        return True

    async def release(self, token: str) -> None:
        """Give the lease back."""
        self._check()
        if token == self._owner:
            self._lease = ("", 0.0)

    async def publish(self, token: str, number: int, step: Step) -> None:
        """Write and notify; see the port."""
        self._check()
        if token != self._owner:
            raise Fenced("another engine is in charge")
        if (self._run, self._number) == (token, number):
            return
        if step.begins_run:
            if self._run == token:
                raise Fenced("this run has begun already")
            self._channels.clear()
        elif (self._run, self._number) != (token, number - 1):
            raise Fenced("the step before is not there")
        for name, entry in step.entries.items():
            entries = self._channels[name].entries
            entries.append(entry)
            while entries[0].seq < step.oldest[name]:
                entries.popleft()
        opened = frozenset(step.opened)
        for name, snapshot in step.snapshots.items():
            if name in opened:
                self._channels[name] = _Channel(snapshot)
            else:
                self._channels[name].snapshot = snapshot
        self._run, self._number, self._is_complete = token, number, step.is_complete
        self._header, self._at = step.header, self._clock() - step.age_ms / 1000
        self._tell(
            Heard(
                run=token,
                number=number,
                header=step.header,
                rollback=step.rollback,
                age_s=step.age_ms / 1000,
                is_complete=step.is_complete,
                opened=opened,
                refused=dict(step.refused),
                entries={name: encode_entry(entry) for name, entry in step.entries.items()},
            )
        )

    async def close(self, token: str, channels: Iterable[str]) -> list[str]:
        """Remove channels that nobody wishes for; see the port."""
        self._check()
        if token != self._owner:
            raise Fenced("another engine is in charge")
        wanted = set[str]().union(*(names for names, until, _ in self._wishes.values() if until > self._clock()))
        closed = [name for name in channels if name not in wanted]
        for name in closed:
            self._channels.pop(name, None)
        return closed

    async def interests(self, since: str = "") -> Interests:
        """Return what is wished for, always all of it; see the port."""
        self._check()
        now = self._clock()
        self._wishes = {name: wish for name, wish in self._wishes.items() if wish[1] > now}
        added = set[str]().union(*(names for names, _, _ in self._wishes.values()))
        return Interests(cursor="", gateways=len(self._wishes), is_whole=True, added=added)

    async def wishes(self) -> AsyncIterator[Sequence[str]]:
        """Yield what gateways begin to wish for; see the port."""
        queue: asyncio.Queue[Sequence[str] | None] = asyncio.Queue(_MAX_UNREAD)
        async for item in _listen(self, self._wish_listeners, queue):
            yield item or ()

    # --- a gateway's side -----------------------------------------------------------------------------

    async def announce(self, gateway: str, add: Iterable[str], remove: Iterable[str], ttl_ms: int) -> bool:
        """Change and renew a gateway's wishes; see the port."""
        self._check()
        now = self._clock()
        names, until, version = self._wishes.get(gateway, (set(), 0.0, ""))
        is_alive = until > now
        added = list(add)
        removed = list(remove)
        after = ((names if is_alive else set()) | set(added)) - set(removed)
        if added or removed or not is_alive:
            self._generation += 1
            version = str(self._generation)
        self._wishes[gateway] = (after, now + ttl_ms / 1000, version)
        if cold := [name for name in added if name not in self._channels]:
            for queue in list(self._wish_listeners):
                _put(queue, cold)
        return is_alive

    async def leave(self, gateway: str) -> None:
        """Forget a gateway's wishes."""
        self._check()
        self._wishes.pop(gateway, None)

    async def steps(self) -> AsyncIterator[Heard | None]:
        """Yield steps as they are published; see the port."""
        queue: asyncio.Queue[Heard | None] = asyncio.Queue(_MAX_UNREAD)
        async for item in _listen(self, self._listeners, queue):
            yield item

    async def read(self, places: Mapping[str, Place]) -> Reading:
        """Return channels as of one step; see the port."""
        self._check()
        if not self._run:
            return Reading()
        return Reading(
            run=self._run,
            number=self._number,
            is_complete=self._is_complete,
            header=self._header,
            age_s=self._clock() - self._at,
            channels={
                name: _held(self._channels[name], place) for name, place in places.items() if name in self._channels
            },
        )

    def _tell(self, heard: Heard) -> None:
        for queue in list(self._listeners):
            _put(queue, heard)


def _held(channel: _Channel, place: Place) -> Held:
    snapshot, entries = channel.snapshot, channel.entries
    if place is not None and place[0] == snapshot.epoch:
        newest = entries[-1].seq if entries else snapshot.seq
        after = [entry for entry in entries if entry.seq > place[1]]
        if (after[0].seq if after else newest + 1) == place[1] + 1:
            return Held(snapshot=None, entries=after)
    return Held(snapshot=snapshot, entries=list(entries))


async def _listen(
    link: MemoryLink, listeners: dict[asyncio.Queue[_T | None], None], queue: asyncio.Queue[_T | None]
) -> AsyncIterator[_T | None]:
    link._check()
    listeners[queue] = None
    try:
        yield None
        while True:
            item = await queue.get()
            if item is None:
                raise BrokerAway("the line broke")
            yield item
    finally:
        listeners.pop(queue, None)


def _put(queue: asyncio.Queue[_T | None], item: _T) -> None:
    if queue.full():
        _drop(queue)
    else:
        queue.put_nowait(item)


def _drop(queue: asyncio.Queue[_T | None]) -> None:
    """Break a line: what is unread is lost."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)
