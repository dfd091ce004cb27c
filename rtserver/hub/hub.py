"""The hub: joins sessions to streams without a gap and delivers every step to whoever listens.

The front of this folder: everyone outside speaks with it, each room behind it has one job. All of it is
synchronous: what one call decides, no other call can fall into.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, cast

from ..domain.chain import Header, Rollback
from ..domain.errors import ClientError
from ..domain.ids import ChainId
from ..domain.update import BlockUpdate
from ..obs.metrics import Metrics
from ..protocols.channels import Channel
from ..store.values import KeptStream
from ..wire.codes import PROTOCOL, CloseCode
from ..wire.messages import Bye, ErrorMessage, Welcome, encode
from .block_frame import rollback_json
from .catching_up import CatchingUp
from .fan_out import FanOut
from .heads import Heads
from .heartbeats import Heartbeats
from .joining import Joining
from .keeping import kept
from .laggards import Laggards
from .limits import Interest, Limits
from .openings import Openings, Request, Waiter
from .refusals import Refusals
from .session import LAG_BYTES, RequestId, Session
from .stream import Stream
from .taking import take_update

__all__ = ["Hub"]

# How often time limits in seconds are looked after.
_ROUND_S: Final = 1.0


class Hub:
    """All channels and sessions of one process.

    Args:
        interest: Told which channels are wanted.
        limits: What one client may do.
        metrics: Where frames are counted.
        clock: Monotonic seconds.
        wall_ms: Milliseconds since the epoch.
    """

    def __init__(
        self,
        interest: Interest,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.limits = limits
        self._metrics = metrics
        self._clock = clock
        self._heads = Heads(clock)
        self._openings = Openings(interest, limits, clock)
        self._catching_up = CatchingUp(self._heads, clock)
        self._laggards = Laggards(self._catching_up, metrics, clock)
        self._joining = Joining(self._openings, self._laggards, self._catching_up, limits, clock)
        self._sessions: dict[Session, None] = {}
        self._fan_out = FanOut(self._sessions.keys(), self._openings.streams, self._laggards, metrics)
        self._heartbeats = Heartbeats(self._heads, limits, wall_ms)
        # By chain: how often it turned, or may have.
        self._turns: Counter[ChainId] = Counter()
        self._refusals = Refusals()
        self._next_round = clock()
        # Counted when someone looks.
        metrics.ring_changes.set_function(
            lambda: sum(stream.kept_changes for stream in self._openings.streams.values())
        )

    # --- heads ----------------------------------------------------------------------------------------

    def head(self, chain_id: ChainId) -> Header | None:
        """Return the newest block that was published."""
        return self._heads.get(chain_id)

    def shard_head(self, chain_id: ChainId, shard: str) -> Header | None:
        """Return the newest block of a shard of a chain, by its label; None before any."""
        return self._heads.of_shard(chain_id, shard)

    def turns(self, chain_id: ChainId) -> int:
        """Return a number that is another one after each reorganisation, and wherever one may have been missed."""
        return self._turns[chain_id]

    def head_age_ms(self, chain_id: ChainId) -> int | None:
        """Return how long ago the newest block was published."""
        return self._heads.age_ms(chain_id)

    def head_of(self, stream: Stream) -> Header:
        """Return the block that an open channel's state is of."""
        return self._heads.of(stream)

    def head_age_of_ms(self, stream: Stream) -> int:
        """Return how long ago that block was published."""
        return self._heads.age_of_ms(stream)

    def forget_heads(self, chain_id: ChainId) -> None:
        """Know nothing of a chain any more: it is heard of anew."""
        self._heads.forget(chain_id)

    # --- sessions -------------------------------------------------------------------------------------

    @property
    def sessions(self) -> Iterable[Session]:
        """Return all open sessions."""
        return self._sessions.keys()

    def open(self, session: Session) -> None:
        """Take a session in and greet it."""
        self._sessions[session] = None
        self._metrics.connections.set(len(self._sessions))
        limits = self.limits
        welcome = Welcome(
            session=session.name,
            protocol=PROTOCOL,
            limits={
                "channels": limits.channels,
                "messageBytes": limits.message_bytes,
                "messagesPerSecond": int(limits.messages_per_s),
                "burst": limits.burst,
            },
            heartbeat_ms=int(limits.heartbeat_s * 1000),
            heads=self._heads.messages(),
        )
        session.send(encode(welcome), self._clock())

    def close(self, session: Session) -> None:
        """Forget a session."""
        self._sessions.pop(session, None)
        self._laggards.forget(session)
        for stream in list(session.joined.values()):
            self._joining.leave(session, stream)
        for name in list(session.pending):
            self._openings.stop_waiting(session, name)
        self._metrics.connections.set(len(self._sessions))

    def is_drowning(self, session: Session) -> bool:
        """Return whether a client goes on asking while its replies pile up unread; a full buffer begins a lag."""
        return self._laggards.is_lagging(session) and session.replied_bytes > LAG_BYTES

    def reply_error(self, session: Session, error: ClientError, request_id: RequestId) -> None:
        """Answer a request that failed."""
        self._metrics.client_errors.labels(error.code).inc()
        message = ErrorMessage(
            code=error.code, message=error.message, id=request_id, retry_after_ms=error.retry_after_ms
        )
        session.reply(encode(message), self._clock())

    def say_bye(self, code: CloseCode, after_ms: Callable[[], int]) -> None:
        """Send every client away; `after_ms` gives each its own delay, so that they don't come back at once."""
        now = self._clock()
        for session in list(self._sessions):
            session.send(encode(Bye(code=code, reconnect=code.reconnect, after_ms=after_ms())), now)
            session.close(code)

    # --- requests -------------------------------------------------------------------------------------

    def subscribe(
        self, session: Session, channel: Channel, request_id: RequestId, cursor: str | None, *, latest: bool = False
    ) -> None:
        """Join a session to a channel: at once where it is open, else as soon as it has been read.

        In mode `latest` changes may be merged whenever something is still unsent, as for a laggard.

        Raises:
            ClientError: `limit` when the session has too many channels, `rate` when too many requests wait.
        """
        if not self._is_refused(session, channel, request_id):
            self._joining.subscribe(session, channel, request_id, cursor, latest=latest)

    def unsubscribe(self, session: Session, channel: Channel, request_id: RequestId) -> None:
        """Take a session off a channel. Not being on it is no error."""
        self._joining.unsubscribe(session, channel, request_id)

    def resync(self, session: Session, channel: Channel, request_id: RequestId) -> None:
        """Send a snapshot to a session that lost its place; raises as `subscribe`."""
        if not self._is_refused(session, channel, request_id):
            self._joining.resync(session, channel, request_id)

    def _is_refused(self, session: Session, channel: Channel, request_id: RequestId) -> bool:
        """Tell why a channel can't be, where that was found out just now; return whether it was."""
        refusal = self._refusals.of(channel.name, self._clock())
        if refusal is None:
            return False
        self.reply_error(session, refusal, request_id)
        return True

    # --- readers without a socket ---------------------------------------------------------------------

    def peek(self, channel: Channel) -> Stream | None:
        """Return an open channel's stream and keep it open for another while."""
        stream = self._openings.streams.get(channel.name)
        if stream is not None and not stream.listeners:
            self._openings.linger(channel.name)
        return stream

    def knows(self, channel: Channel) -> bool:
        """Return whether a channel is open or being read, or can't be: who asks for it causes no reads."""
        name = channel.name
        return self._openings.knows(name) or self._refusals.of(name, self._clock()) is not None

    def when_open(self, channel: Channel, waiter: Waiter) -> None:
        """Call `waiter` once with the channel's stream as soon as it is open, or with why it will not be."""
        refusal = self._refusals.of(channel.name, self._clock())
        if refusal is not None:
            waiter(refusal)
            return
        self._openings.when_open(channel, waiter)

    # --- over a restart -------------------------------------------------------------------------------

    def reopen(self, channel: Channel) -> None:
        """Wish for a channel that an earlier process had open; it lingers until someone comes."""
        self._openings.reopen(channel)

    def go_on(self, streams: Mapping[str, KeptStream]) -> None:
        """Go on with streams of an earlier process under their epochs, once their channels are read."""
        self._openings.go_on(streams)

    def kept_streams(self, chain_id: ChainId) -> dict[str, KeptStream]:
        """Return what another process needs to go on with a chain's streams, if nothing is published after this."""
        streams = self._openings.streams
        return {name: kept(stream) for name, stream in streams.items() if stream.chain_id == chain_id}

    # --- steps ----------------------------------------------------------------------------------------

    def publish(self, update: BlockUpdate) -> None:
        """Deliver a step: one frame to every session that it concerns."""
        now = self._clock()
        chain_id, header = update.chain_id, update.header
        if update.is_new_head or chain_id not in self._heads:
            self._heads.take(chain_id, header, now)
        told: list[Stream] = []
        try:
            take_update(self._openings.streams, update, told, now)
            if update.rollback is not None and update.rollback.to is None:
                self._begin_epochs(told)
            elif told:
                self._fan_out.deliver(chain_id, header, told, rollback_json(update.rollback), now)
        finally:
            for stream in told:
                stream.fragment = ""
        if update.rollback is not None:
            self._turns[chain_id] += 1
            # Blocks that the last process had told of may be among the dropped, and its clients are not here yet.
            self._openings.begin_anew(chain_id)
        for name, state in update.opened.items():
            self._welcome(*self._openings.open(name, chain_id, state, header.ref))
        for name, error in update.refused.items():
            self.refuse(name, error)
        self._metrics.channels.set(len(self._openings.streams))

    def _begin_epochs(self, streams: Collection[Stream]) -> None:
        """Begin streams anew: the chain turned deeper than anyone remembers, so nothing proves what led here."""
        for stream in streams:
            stream.begin_epoch(self._openings.next_epoch())
        self._begin_anew(streams)

    def _begin_anew(self, streams: Iterable[Stream]) -> None:
        """Send the snapshots of streams whose listeners hold nothing of them any more."""
        listening: dict[Session, list[Stream]] = {}
        for stream in streams:
            # Only sessions listen; the stream doesn't know what they are.
            for session in cast(dict[Session, None], stream.listeners):
                listening.setdefault(session, []).append(stream)
        for session, mine in listening.items():
            self._laggards.begin_anew(session, mine)

    def _welcome(self, stream: Stream, requests: Iterable[Request]) -> None:
        """Answer all who asked for a channel that has just opened."""
        for session, request_id, cursor, latest in requests:
            self._joining.join(session, stream, request_id, cursor, latest=latest)
        self._openings.tell_waiters(stream.channel, stream)
        if not stream.listeners:
            self._openings.linger(stream.channel)

    def refuse(self, name: str, error: ClientError) -> None:
        """Tell all who asked for a channel why it will not be; who asks in the next seconds is told so, too."""
        self._refusals.note(name, error, self._clock())
        for session, request_id, _, _ in self._openings.refuse(name):
            self.reply_error(session, error, request_id)
        self._openings.tell_waiters(name, error)

    # --- steps that were taken elsewhere --------------------------------------------------------------
    # A gateway's streams are mirrors: whoever moved them (relay) says here what is to be delivered.

    def deliver(
        self,
        chain_id: ChainId,
        header: Header,
        age_s: float,
        told: list[Stream],
        rollback: Rollback | None,
        shard: str = "",
    ) -> None:
        """Deliver a step of a chain. The streams have taken it already, one seq each, and hold what they tell of it.

        The head's age is `age_s`.
        """
        now = self._clock()
        self._heads.take(chain_id, header, now - age_s, shard)
        if rollback is not None:
            self._turns[chain_id] += 1
        try:
            if told:
                self._fan_out.deliver(chain_id, header, told, rollback_json(rollback), now)
        finally:
            for stream in told:
                stream.fragment = ""

    def catch_up(
        self,
        chain_id: ChainId,
        header: Header,
        age_s: float,
        moved: Mapping[Stream, int],
        replaced: Iterable[Stream],
        shard: str = "",
    ) -> None:
        """Bring all who listen to now, after several steps at once.

        Args:
            chain_id: The chain.
            header: Its block of now.
            age_s: How long ago that became the head.
            moved: Streams that were led on, and the seq that was told last.
            replaced: Streams that have nothing to do with what was told.
            shard: Which of the chain's engines said it.
        """
        self._heads.take(chain_id, header, self._clock() - age_s, shard)
        self._turns[chain_id] += 1
        places: dict[Session, dict[Stream, int]] = {}
        for stream, seq in moved.items():
            for session in cast(dict[Session, None], stream.listeners):
                places.setdefault(session, {})[stream] = seq
        for session, mine in places.items():
            self._laggards.lead_on(session, mine)
        self._begin_anew(replaced)

    def take_in(self, stream: Stream) -> None:
        """Open a channel with a stream that was begun elsewhere."""
        self._welcome(stream, self._openings.take_in(stream))
        self._metrics.channels.set(len(self._openings.streams))

    def lose(self, stream: Stream) -> None:
        """Make a channel cold again: it is not to be had now. Its sessions wait as if they had just asked."""
        for session in list(cast(dict[Session, None], stream.listeners)):
            latest = stream in session.latest
            self._joining.leave(session, stream)
            self._openings.wait_again(session, stream.channel, latest=latest)
        self._openings.lose(stream.channel)
        self._metrics.channels.set(len(self._openings.streams))

    # --- time -----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due: laggards, heartbeats, late pongs, slow cold loads, idle channels, old copies of states."""
        now = self._clock()
        self._laggards.tend(now)
        if now >= self._next_round:
            # Once a second: every session and every idle channel is looked at, and there may be many.
            self._next_round = now + _ROUND_S
            self._heartbeats.look(list(self._sessions), now)
            for name in self._openings.overdue(now):
                self._time_out(name)
            self._openings.shut_idle(now)
            self._catching_up.tend(now)
            self._metrics.channels.set(len(self._openings.streams))

    def _time_out(self, name: str) -> None:
        channel = self._openings.withdraw(name)
        head_known = channel is not None and channel.chain_id in self._heads
        self.refuse(
            name,
            ClientError("load_timeout", f"{name} could not be read in time; try again", retry_after_ms=2000)
            if head_known
            else ClientError("chain_unavailable", f"the chain of {name} does not answer yet", retry_after_ms=5000),
        )
