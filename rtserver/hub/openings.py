"""Which channels are open, wished for, or watched by nobody any more; and who waits for a cold one.

A channel is wished for when its first client comes, opens when its state has been read, and closes some time
after its last client has left. Never writes to a client: it hands back who has to be answered.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ..domain.chain import BlockRef
from ..domain.diff import State
from ..domain.errors import ClientError
from ..domain.ids import ChainId
from ..protocols.channels import Channel
from ..store.values import KeptStream
from .keeping import continued
from .limits import Interest, Limits
from .session import RequestId, Session
from .stream import Stream

__all__ = ["Openings", "Request", "Waiter"]

# On top of the time that one cold channel has: tens of thousands of positions are read again at a restart.
_REOPENING_S: Final = 120.0
# Channels that nobody watches, some kilobytes each, also of what does not exist: many addresses that each ask for as
# much as they may would otherwise fill the memory within the time that one lingers. After a restart all are such.
_MAX_IDLE: Final = 100_000
# Told once: the stream, or why there will be none.
Waiter = Callable[[Stream | ClientError], None]
# Who asked for a channel: the request, its cursor, and whether in mode "latest".
Request = tuple[Session, RequestId, str | None, bool]


class Openings:
    """All channels of one process.

    Args:
        interest: Told which channels are wanted.
        limits: How long a cold channel is waited for, and an unwatched one is kept.
        clock: Monotonic seconds.
    """

    def __init__(self, interest: Interest, limits: Limits, clock: Callable[[], float]) -> None:
        self._interest = interest
        self._limits = limits
        self._clock = clock
        # New with every process: nothing that a client kept from an earlier one can be continued.
        self._epoch: Final = secrets.token_hex(4)
        self._opened = 0
        # Open channels by name. Fan-out reads it; only this class changes it.
        self.streams: dict[str, Stream] = {}
        self._channels: dict[str, Channel] = {}
        self._waiting: dict[str, dict[Session, None]] = {}
        self._waiters: dict[str, list[Waiter]] = {}
        self._wanted_at: dict[str, float] = {}
        self._idle_since: dict[str, float] = {}
        # Streams of an earlier process that go on when their channel opens.
        self._kept: dict[str, KeptStream] = {}

    # --- wishes ---------------------------------------------------------------------------------------

    def want(self, channel: Channel) -> None:
        """Wish for a channel, unless it is wished for already."""
        name = channel.name
        self._idle_since.pop(name, None)
        if name not in self._channels:
            self._channels[name] = channel
            self._wanted_at[name] = self._clock()
            self._interest.want(channel)

    def knows(self, name: str) -> bool:
        """Return whether a channel is wished for, or open already."""
        return name in self._channels

    def wait(
        self, session: Session, channel: Channel, request_id: RequestId, cursor: str | None, *, latest: bool
    ) -> None:
        """Note a session that asks for a cold channel. Its cursor is of use where an earlier stream goes on."""
        name = channel.name
        session.pending.setdefault(name, []).append((request_id, cursor, latest))
        self._waiting.setdefault(name, {})[session] = None
        self.want(channel)

    def stop_waiting(self, session: Session, name: str) -> None:
        """Forget what a session asked of a cold channel."""
        session.pending.pop(name, None)
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.pop(session, None)
            if not waiting and not self._waiters.get(name):
                self._idle_since[name] = self._clock()

    def when_open(self, channel: Channel, waiter: Waiter) -> None:
        """Call `waiter` once with the channel's stream as soon as it is open, or with why it will not be."""
        self._waiters.setdefault(channel.name, []).append(waiter)
        self.want(channel)

    def reopen(self, channel: Channel) -> None:
        """Wish for a channel that an earlier process had open: with thousands of others, so with more time."""
        self.want(channel)
        if channel.name in self._wanted_at:
            self._wanted_at[channel.name] = self._clock() + _REOPENING_S

    def go_on(self, streams: Mapping[str, KeptStream]) -> None:
        """Go on with these streams of an earlier process as soon as their channels are read."""
        self._kept.update((name, stream) for name, stream in streams.items() if name in self._channels)

    def begin_anew(self, chain_id: ChainId) -> None:
        """Let go of a chain's streams that were to go on: what led from them to now can't be told as one change."""
        self._kept = {name: stream for name, stream in self._kept.items() if self._channels[name].chain_id != chain_id}

    # --- answers --------------------------------------------------------------------------------------

    def open(self, name: str, chain_id: ChainId, state: State, block: BlockRef) -> tuple[Stream, list[Request]]:
        """Open a channel with its first state; return its stream and who asked for it, in the order of asking."""
        before = self._kept.pop(name, None)
        if before is None:
            stream = Stream(name, chain_id, self.next_epoch(), state, block.hash, self._clock)
        else:
            stream = continued(name, chain_id, before, state, block, self._clock)
        return stream, self.take_in(stream)

    def take_in(self, stream: Stream) -> list[Request]:
        """Open a channel with a stream that was begun elsewhere; return who asked for it."""
        self.streams[stream.channel] = stream
        self._wanted_at.pop(stream.channel, None)
        return self._pop_requests(stream.channel)

    def wait_again(self, session: Session, name: str, *, latest: bool) -> None:
        """Note a session whose channel was open and is lost: as if it had just asked, without a request to answer."""
        session.pending.setdefault(name, []).append((None, None, latest))
        self._waiting.setdefault(name, {})[session] = None

    def lose(self, name: str) -> None:
        """Make an open channel cold: it is wished for from now on."""
        self.streams.pop(name, None)
        if self._waiting.get(name):
            self._idle_since.pop(name, None)
            self._wanted_at[name] = self._clock()
        else:
            self._shut(name)

    def refuse(self, name: str) -> list[Request]:
        """Forget a channel that will never open; return who asked for it."""
        self._wanted_at.pop(name, None)
        self._channels.pop(name, None)
        self._idle_since.pop(name, None)
        self._kept.pop(name, None)
        return self._pop_requests(name)

    def tell_waiters(self, name: str, answer: Stream | ClientError) -> None:
        """Tell those without a session, after all who have one."""
        for waiter in self._waiters.pop(name, []):
            waiter(answer)

    def _pop_requests(self, name: str) -> list[Request]:
        return [
            (session, request_id, cursor, latest)
            for session in self._waiting.pop(name, {})
            for request_id, cursor, latest in session.pending.pop(name, [])
        ]

    def next_epoch(self) -> str:
        """Return an epoch that no stream of this process or another has had."""
        self._opened += 1
        return f"{self._epoch}{self._opened:x}"

    # --- the end of a channel -------------------------------------------------------------------------

    def linger(self, name: str) -> None:
        """Nobody watches a channel: it stays open for another while."""
        # In the order of time.
        self._idle_since.pop(name, None)
        self._idle_since[name] = self._clock()

    def keep(self, name: str) -> None:
        """Someone watches a channel."""
        self._idle_since.pop(name, None)

    def overdue(self, now: float) -> list[str]:
        """Return the cold channels that were waited for too long."""
        return [name for name, since in self._wanted_at.items() if now - since > self._limits.load_s]

    def withdraw(self, name: str) -> Channel | None:
        """Tell the engine that a cold channel is not wanted any more; return which that was."""
        channel = self._channels.get(name)
        if channel is not None:
            self._interest.unwant(channel)
        return channel

    def shut_idle(self, now: float) -> None:
        """Close the channels that nobody watched for long enough; of too many, those first that waited longest."""
        spare = len(self._idle_since) - _MAX_IDLE
        for name, since in list(self._idle_since.items()):
            if now - since > self._limits.linger_s or spare > 0:
                self._shut(name)
                spare -= 1

    def _shut(self, name: str) -> None:
        self._idle_since.pop(name, None)
        self._kept.pop(name, None)
        self.streams.pop(name, None)
        self._wanted_at.pop(name, None)
        channel = self._channels.pop(name, None)
        if channel is not None:
            self._interest.unwant(channel)

    def kept(self) -> dict[str, list[str]]:
        """Return the names of all that is remembered, by kind: what a leak would show up in."""
        kinds: dict[str, Iterable[str]] = {
            "streams": self.streams, "channels": self._channels, "waiting": self._waiting, "waiters": self._waiters,
            "wanted": self._wanted_at, "idle": self._idle_since, "going on": self._kept,
        }  # fmt: skip
        return {kind: list(names) for kind, names in kinds.items()}
