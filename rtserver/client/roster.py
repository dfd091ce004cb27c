"""Which channels a client watches, under which spellings, and which request is about which of them.

It finds and keeps; what happens to a channel is the session's to decide.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from ..wire.messages import Block, ChangeMessage, RequestId
from .replica import Replica

__all__ = ["MAX_HELD", "Phase", "Roster", "Watch"]

# What may come in while a snapshot is on its way. The server's ring holds as many; one more is a gap anyway.
MAX_HELD: Final = 256


class Phase(Enum):
    """Where a channel stands; the table is at the top of `session`."""

    IDLE = "idle"
    JOINING = "joining"
    LIVE = "live"
    HEALING = "healing"


@dataclass(slots=True, eq=False)
class Watch:
    """One watched channel.

    Args:
        replica: Its copy.
        names: The spellings that were asked for; none for a channel that the server chose by itself.
        phase: Where it stands.
        request: The newest request about it, whose replies are for it.
        due: IDLE: when to subscribe; JOINING and HEALING: when to ask again; monotonic seconds.
        failures: Refusals in a row.
        wrong_snapshots: Snapshots in a row that contradict their checksum.
        held: Changes that came in while a snapshot was awaited, with their frames.
    """

    replica: Replica
    names: set[str]
    phase: Phase = Phase.IDLE
    request: RequestId | None = None
    due: float = 0.0
    failures: int = 0
    wrong_snapshots: int = 0
    held: deque[tuple[ChangeMessage, Block]] = field(default_factory=lambda: deque(maxlen=MAX_HELD))


class Roster:
    """All watches. Several spellings may lead to one."""

    def __init__(self) -> None:
        self._watches: dict[str, Watch] = {}
        self._requests: dict[RequestId, Watch] = {}
        self._next_id = 1

    @staticmethod
    def key(channel: str) -> str:
        """Return what spellings of one channel share: hex digits in any case name the same address."""
        return channel.lower()

    def all(self) -> list[Watch]:
        """Return each watch once."""
        return list(dict.fromkeys(self._watches.values()))

    def get(self, channel: str) -> Watch | None:
        """Return a channel's watch by any of its spellings."""
        return self._watches.get(self.key(channel))

    def add(self, watch: Watch) -> Watch:
        """Take a watch in under its replica's name."""
        self._watches[self.key(watch.replica.channel)] = watch
        return watch

    def forget(self, watch: Watch) -> None:
        """Drop a watch under all its spellings."""
        for key in [key for key, known in self._watches.items() if known is watch]:
            del self._watches[key]
        if watch.request is not None:
            self._requests.pop(watch.request, None)

    def new_id(self) -> int:
        """Return an id that no request had before."""
        self._next_id += 1
        return self._next_id - 1

    def assign(self, watch: Watch) -> None:
        """Give a watch a new request; replies to the one before are no longer for it."""
        if watch.request is not None:
            self._requests.pop(watch.request, None)
        watch.request = self.new_id()
        self._requests[watch.request] = watch

    def end_request(self, request: RequestId) -> Watch | None:
        """Return whom a refused request was about; it is over."""
        return self._requests.pop(request, None)

    def end_requests(self) -> None:
        """Forget all requests: their connection ended."""
        self._requests.clear()

    def find(self, request: RequestId | None, channel: str) -> Watch | None:
        """Return whom a reply is for, and take over the server's spelling."""
        asked = None if request is None else self._requests.get(request)
        named = self.get(channel)
        if asked is None:
            return named
        if named is not None and named is not asked:
            # Two names that differ by more than case turned out to be one channel: the first one keeps it.
            named.names |= asked.names
            named.phase, named.request = asked.phase, request
            named.replica.forget_parts()
            for key in [key for key, watch in self._watches.items() if watch is asked]:
                self._watches[key] = named
            if request is not None:
                self._requests[request] = named
            return named
        if asked.replica.channel != channel:
            asked.replica.channel = channel
            self.add(asked)
        return asked
