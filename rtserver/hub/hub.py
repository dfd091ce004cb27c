"""The hub: joins sessions to streams without a gap and delivers every step to whoever listens.

All of it is synchronous: registering, reading the state and queueing the snapshot happen in one event-loop
step, so no change can fall between them. What has to be awaited (a cold channel) is awaited by nobody: the
session is noted, and the step that opens the channel answers it.
"""

import secrets
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal, cast

import orjson

from ..domain.chain import Header
from ..domain.diff import EncodedPatch
from ..domain.errors import ClientError
from ..domain.ids import ChainId
from ..domain.update import BlockUpdate
from ..obs.metrics import Metrics
from ..protocols.channels import Channel
from ..wire.codes import PROTOCOL, CloseCode
from ..wire.cursor import parse_cursor
from ..wire.frames import text_frame
from ..wire.messages import (
    Bye,
    ErrorMessage,
    HeadMessage,
    Heartbeat,
    ServerMessage,
    Subscribed,
    Unsubscribed,
    Welcome,
    encode,
)
from .block_frame import block_head, block_json, block_message, rollback_json
from .limits import Interest, Limits
from .session import LAG_BYTES, SLOW_S, Session
from .stream import Encoder, Stream, block_tag

__all__ = ["Hub"]

RequestId = int | str | None
# Where a client that holds nothing of a channel is: no seq from which a change could lead on.
_NOWHERE: Final = -1
_NO_PATCHES: Final[dict[str, EncodedPatch]] = {}
# How often time limits in seconds are looked after.
_ROUND_S: Final = 1.0
Waiter = Callable[[Stream | ClientError], None]


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
        self._interest = interest
        self.limits = limits
        self._metrics = metrics
        self._clock = clock
        self._wall_ms = wall_ms
        # New with every process: nothing that a client kept from an earlier one can be continued.
        self._epoch: Final = secrets.token_hex(4)
        self._opened = 0
        self._streams: dict[str, Stream] = {}
        self._channels: dict[str, Channel] = {}
        self._waiting: dict[str, dict[Session, None]] = {}
        self._waiters: dict[str, list[Waiter]] = {}
        self._wanted_at: dict[str, float] = {}
        self._idle_since: dict[str, float] = {}
        self._sessions: dict[Session, None] = {}
        self._lagging: dict[Session, None] = {}
        self._holding: dict[Session, None] = {}
        self._heads: dict[ChainId, tuple[Header, float]] = {}
        self._next_round = clock()

    # --- heads ----------------------------------------------------------------------------------------

    def head(self, chain_id: ChainId) -> Header | None:
        """Return the newest block that was published."""
        known = self._heads.get(chain_id)
        return None if known is None else known[0]

    def head_age_ms(self, chain_id: ChainId) -> int | None:
        """Return how long ago the newest block was published."""
        known = self._heads.get(chain_id)
        return None if known is None else int((self._clock() - known[1]) * 1000)

    def _head_messages(self) -> dict[str, HeadMessage]:
        now = self._clock()
        return {
            str(chain_id): HeadMessage(
                number=header.number, hash=header.hash, timestamp=header.timestamp, age_ms=int((now - at) * 1000)
            )
            for chain_id, (header, at) in self._heads.items()
        }

    # --- sessions -------------------------------------------------------------------------------------

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
            heads=self._head_messages(),
        )
        session.send(encode(welcome), self._clock())

    def close(self, session: Session) -> None:
        """Forget a session."""
        self._sessions.pop(session, None)
        self._lagging.pop(session, None)
        self._holding.pop(session, None)
        for stream in session.joined.values():
            self._leave(session, stream)
        session.joined.clear()
        for name in session.pending:
            self._stop_waiting(session, name)
        session.pending.clear()
        self._metrics.connections.set(len(self._sessions))

    def is_drowning(self, session: Session) -> bool:
        """Return whether a client goes on asking while its replies pile up unread; a full buffer begins a lag."""
        return self._is_lagging(session) and session.replied_bytes > LAG_BYTES

    def _reply(self, session: Session, message: ServerMessage) -> None:
        text = encode(message)
        if session.lag_since is not None:
            session.replied_bytes += len(text)
        session.send(text, self._clock())

    def reply_error(self, session: Session, error: ClientError, request_id: RequestId) -> None:
        """Answer a request that failed."""
        self._metrics.client_errors.labels(error.code).inc()
        message = ErrorMessage(
            code=error.code, message=error.message, id=request_id, retry_after_ms=error.retry_after_ms
        )
        self._reply(session, message)

    def subscribe(
        self, session: Session, channel: Channel, request_id: RequestId, cursor: str | None, *, latest: bool = False
    ) -> None:
        """Join a session to a channel: at once where it is open, else as soon as it has been read.

        In mode `latest` changes may be merged whenever something is still unsent, as for a laggard.

        Raises:
            ClientError: `limit` when the session has too many channels.
        """
        name = channel.name
        count = len(session.joined) + len(session.pending)
        if name not in session.joined and name not in session.pending and count >= self.limits.channels:
            raise ClientError(
                "limit", f"a connection may have {self.limits.channels} channels; unsubscribe from one, or open another"
            )
        stream = self._streams.get(name)
        if stream is not None:
            self._join(session, stream, request_id, cursor, latest=latest)
            return
        session.pending.setdefault(name, []).append((request_id, latest))
        self._waiting.setdefault(name, {})[session] = None
        self._want(channel)

    def unsubscribe(self, session: Session, channel: Channel, request_id: RequestId) -> None:
        """Take a session off a channel. Not being on it is no error."""
        name = channel.name
        stream = session.joined.pop(name, None)
        if stream is not None:
            self._leave(session, stream)
        if session.pending.pop(name, None) is not None:
            self._stop_waiting(session, name)
        self._reply(session, Unsubscribed(channel=name, id=request_id))

    def resync(self, session: Session, channel: Channel, request_id: RequestId) -> None:
        """Send a snapshot to a session that lost its place."""
        stream = session.joined.get(channel.name)
        if stream is None:
            self.subscribe(session, channel, request_id, None)
        elif self._is_lagging(session):
            session.written[stream] = _NOWHERE
            session.owed[stream] = (request_id, stream in session.owed and session.owed[stream][1])
        else:
            self._send_snapshot(session, stream, request_id)

    def _join(
        self, session: Session, stream: Stream, request_id: RequestId, cursor: str | None, *, latest: bool
    ) -> None:
        session.joined[stream.channel] = stream
        (session.latest.add if latest else session.latest.discard)(stream)
        session.held.pop(stream, None)
        stream.listeners[session] = None
        self._idle_since.pop(stream.channel, None)
        place = None if cursor is None else parse_cursor(cursor)
        seq = place.seq if place is not None and stream.resumable(place) else _NOWHERE
        if self._is_lagging(session):
            # What joins is owed like a change: a client that asks and doesn't read costs no memory.
            session.written[stream] = seq
            session.owed[stream] = (request_id, True)
        else:
            session.owed[stream] = (request_id, True)
            self._catch_up(session, {stream: seq}, self._clock())

    def _send_snapshot(self, session: Session, stream: Stream, request_id: RequestId) -> None:
        now = self._clock()
        header = self._heads[stream.chain_id][0]
        parts = list(stream.snapshot_parts())
        checksum = stream.checksum()
        request = b"" if request_id is None else b'"id":%b,' % orjson.dumps(request_id)
        head = b'{"type":"snapshot",%b"channel":%b,"epoch":"%b","seq":%d,"block":%b' % (
            request, orjson.dumps(stream.channel), stream.epoch.encode(), stream.seq, block_json(header).encode(),
        )  # fmt: skip
        for index, state in enumerate(parts, 1):
            tail = b',"checksum":%d,"cursor":"%b","part":%d,"parts":%d}' % (
                checksum, stream.cursor.encode(), index, len(parts),
            )  # fmt: skip
            session.send(b'%b,"state":%b%b' % (head, state, tail), now)
        session.held.pop(stream, None)

    def _is_lagging(self, session: Session) -> bool:
        """Return whether nothing that holds state may be written now; a full buffer begins a lag."""
        if session.lag_since is None and session.is_full():
            self._begin_lag(session, {}, self._clock())
        return session.lag_since is not None

    def _leave(self, session: Session, stream: Stream) -> None:
        stream.listeners.pop(session, None)
        session.written.pop(stream, None)
        session.held.pop(stream, None)
        session.owed.pop(stream, None)
        session.latest.discard(stream)
        if not stream.listeners:
            self._idle_since[stream.channel] = self._clock()

    def _stop_waiting(self, session: Session, name: str) -> None:
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.pop(session, None)
            if not waiting and not self._waiters.get(name):
                self._idle_since[name] = self._clock()

    def _want(self, channel: Channel) -> None:
        name = channel.name
        self._idle_since.pop(name, None)
        if name not in self._channels:
            self._channels[name] = channel
            self._wanted_at[name] = self._clock()
            self._interest.want(channel)

    # --- readers without a socket ---------------------------------------------------------------------

    def peek(self, channel: Channel) -> Stream | None:
        """Return an open channel's stream and keep it open for another while."""
        stream = self._streams.get(channel.name)
        if stream is not None and not stream.listeners:
            self._idle_since[channel.name] = self._clock()
        return stream

    def when_open(self, channel: Channel, waiter: Waiter) -> None:
        """Call `waiter` once with the channel's stream as soon as it is open, or with why it will not be."""
        self._waiters.setdefault(channel.name, []).append(waiter)
        self._want(channel)

    # --- steps ----------------------------------------------------------------------------------------

    def publish(self, update: BlockUpdate) -> None:
        """Deliver a step: one frame to every session that it concerns."""
        now = self._clock()
        chain_id, header = update.chain_id, update.header
        if update.is_new_head or chain_id not in self._heads:
            self._heads[chain_id] = (header, now)
        encode_once = Encoder()
        step = (block_tag(header.hash), now)
        rolled_back = update.rollback is not None
        streams, patched = self._streams, update.patched
        # The fragment of each stream that changed; its seq before is always one less than now.
        fragments: dict[Stream, str] = {}
        for name, change in update.changes.items():
            stream = streams.get(name)
            if stream is not None and (change or rolled_back):
                texts = patched.get(name, _NO_PATCHES)
                fragments[stream] = stream.apply(change, step, encode_once, prove=rolled_back, patched=texts)
        for name, texts in patched.items():
            stream = streams.get(name)
            if stream is not None and stream not in fragments:
                fragments[stream] = stream.apply(None, step, encode_once, prove=rolled_back, patched=texts)
        if rolled_back:
            # A rollback is one more sequenced message on every channel of the chain, changed or not.
            for stream in streams.values():
                if stream.chain_id == chain_id and stream not in fragments:
                    fragments[stream] = stream.apply(None, step, encode_once, prove=True)
        if fragments:
            self._fan_out(chain_id, header, fragments, rollback_json(update), now)
        for name, state in update.opened.items():
            self._open_stream(name, Stream(name, chain_id, self._next_epoch(), state, header.hash, self._clock))
        for name, error in update.refused.items():
            self._refuse(name, error)
        self._metrics.channels.set(len(self._streams))

    def _fan_out(
        self,
        chain_id: ChainId,
        header: Header,
        fragments: dict[Stream, str],
        rollback: str,
        now: float,
    ) -> None:
        # A session and the one stream that it gets, as most do, or all of them.
        targets: dict[Session, Stream | list[Stream]] = {}
        for stream in fragments:
            # Only sessions listen; the stream doesn't know what they are.
            listeners = cast(dict[Session, None], stream.listeners)
            if not targets:
                targets = dict.fromkeys(listeners, stream)
                continue
            for session in listeners:
                known = targets.get(session)
                if known is None:
                    targets[session] = stream
                elif isinstance(known, list):
                    known.append(stream)
                else:
                    targets[session] = [known, stream]
        prefix, suffix = block_head(chain_id, header), f"]{rollback}}}"
        frames: dict[Stream | tuple[Stream, ...], bytes] = {}
        sent = sent_bytes = 0
        for session, mine in targets.items():
            if session.lag_since is not None:
                continue
            outlet = session.outlet
            if outlet.get_write_buffer_size() > LAG_BYTES:
                self._begin_lag(session, fragments, now)
                continue
            if session.latest:
                streams = mine if isinstance(mine, list) else [mine]
                if outlet.get_write_buffer_size():
                    streams = self._hold_back(session, streams)
                elif session.held:
                    # Drained since the last look: what was held back covers this step, too, in one frame.
                    due = {stream: stream.seq - 1 for stream in streams}
                    self._let_go(session, due, now, (chain_id, rollback))
                    continue
                if not streams and not rollback:
                    continue
                mine = streams
            key = tuple(mine) if isinstance(mine, list) else mine
            frame = frames.get(key)
            if frame is None:
                changes = ",".join([fragments[stream] for stream in (mine if isinstance(mine, list) else (mine,))])
                frame = frames[key] = text_frame(f"{prefix}{changes}{suffix}".encode())
            # What Session.write does, without the calls: they cost a fifth of what the system call does.
            if not outlet.is_closing():
                outlet.write(frame)
                session.last_write = now
                session.written_bytes += len(frame)
                sent += 1
                sent_bytes += len(frame)
        self._metrics.frames.inc(sent)
        self._metrics.frame_bytes.inc(sent_bytes)

    def _hold_back(self, session: Session, streams: list[Stream]) -> list[Stream]:
        """Note which of the streams wait until the client has taken what is unsent; return the others."""
        now_due = []
        for stream in streams:
            if stream in session.latest:
                session.held.setdefault(stream, stream.seq - 1)
                self._holding[session] = None
            else:
                now_due.append(stream)
        return now_due

    def _let_go(
        self, session: Session, due: dict[Stream, int], now: float, told: tuple[ChainId, str] | None = None
    ) -> None:
        """Send what was held back; in a step, that chain's only and together with what is due.

        `told` is the step's chain and its rollback, if it had one.
        """
        held, session.held = session.held, {}
        self._holding.pop(session, None)
        for stream, seq in held.items():
            if told is not None and stream.chain_id != told[0]:
                session.held[stream] = seq
                self._holding[session] = None
            else:
                due[stream] = seq
        self._catch_up(session, due, now, told)

    def _begin_lag(self, session: Session, fragments: dict[Stream, str], now: float) -> None:
        session.lag_since = now
        session.replied_bytes = 0
        session.written = {
            stream: session.held.get(stream, stream.seq - 1 if stream in fragments else stream.seq)
            for stream in session.joined.values()
        }
        session.held.clear()
        self._holding.pop(session, None)
        self._lagging[session] = None
        self._metrics.lagging.inc()

    def _open_stream(self, name: str, stream: Stream) -> None:
        self._streams[name] = stream
        self._wanted_at.pop(name, None)
        for session in self._waiting.pop(name, {}):
            for request_id, latest in session.pending.pop(name, []):
                self._join(session, stream, request_id, None, latest=latest)
        for waiter in self._waiters.pop(name, []):
            waiter(stream)
        if not stream.listeners:
            self._idle_since[name] = self._clock()

    def _refuse(self, name: str, error: ClientError) -> None:
        self._wanted_at.pop(name, None)
        self._channels.pop(name, None)
        self._idle_since.pop(name, None)
        for session in self._waiting.pop(name, {}):
            for request_id, _ in session.pending.pop(name, []):
                self.reply_error(session, error, request_id)
        for waiter in self._waiters.pop(name, []):
            waiter(error)

    def _next_epoch(self) -> str:
        self._opened += 1
        return f"{self._epoch}{self._opened:x}"

    # --- time -----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due: laggards, heartbeats, late pongs, cold loads that take too long, idle channels."""
        now = self._clock()
        for session in list(self._lagging):
            self._tend_laggard(session, now)
        for session in list(self._holding):
            if not session.outlet.get_write_buffer_size():
                self._let_go(session, {}, now)
        if now >= self._next_round:
            self._next_round = now + _ROUND_S
            self._round(now)

    def _round(self, now: float) -> None:
        """Look at every session and every idle channel; once a second, since there may be many."""
        limits = self.limits
        heads: dict[str, HeadMessage] | None = None
        for session in list(self._sessions):
            waiting_since = session.awaiting_pong_since
            if waiting_since is not None:
                if now - waiting_since > limits.pong_s:
                    session.close(CloseCode.NO_PONG)
            elif now - session.last_write >= limits.heartbeat_s and session.lag_since is None:
                heads = heads or self._head_messages()
                held = session.held
                seqs = {stream.channel: held.get(stream, stream.seq) for stream in session.joined.values()}
                session.send(encode(Heartbeat(time=self._wall_ms(), heads=heads, seqs=seqs)), now)
                session.awaiting_pong_since = now
        for name, since in list(self._wanted_at.items()):
            if now - since > limits.load_s:
                self._time_out(name)
        for name, since in list(self._idle_since.items()):
            if now - since > limits.linger_s:
                self._shut(name)

    def _tend_laggard(self, session: Session, now: float) -> None:
        if session.outlet.get_write_buffer_size() == 0:
            written, session.written, session.lag_since = session.written, {}, None
            del self._lagging[session]
            self._catch_up(session, written, now)
        elif session.lag_since is not None and now - session.lag_since > SLOW_S:
            session.close(CloseCode.SLOW)

    def _catch_up(
        self, session: Session, written: dict[Stream, int], now: float, told: tuple[ChainId, str] | None = None
    ) -> None:
        """Bring a session from what was written last to now: one merged change a channel, or a snapshot.

        Replies that are owed go along. `told` is a chain's rollback, for that chain's frame.
        """
        by_chain: dict[ChainId, list[str]] = {}
        joined: list[Subscribed] = []
        for stream, seq in written.items():
            request_id, is_join = session.owed.pop(stream, (None, False))
            how: Literal["resumed", "snapshot"] = "resumed"
            if stream.seq != seq:
                fragment = None if seq == _NOWHERE else stream.merged_fragment(seq)
                if fragment is None:
                    how = "snapshot"
                    self._send_snapshot(session, stream, request_id)
                else:
                    by_chain.setdefault(stream.chain_id, []).append(fragment)
            if is_join:
                joined.append(
                    Subscribed(
                        channel=stream.channel, how=how, epoch=stream.epoch, seq=stream.seq, cursor=stream.cursor,
                        id=request_id,
                    )
                )  # fmt: skip
        for chain_id, fragments in by_chain.items():
            header = self._heads[chain_id][0]
            rollback = told[1] if told is not None and told[0] == chain_id else ""
            session.send(block_message(chain_id, header, fragments, rollback), now)
        for message in joined:
            session.send(encode(message), now)

    def _time_out(self, name: str) -> None:
        channel = self._channels.get(name)
        if channel is not None:
            self._interest.unwant(channel)
        head_known = channel is not None and channel.chain_id in self._heads
        self._refuse(
            name,
            ClientError("load_timeout", f"{name} could not be read in time; try again", retry_after_ms=2000)
            if head_known
            else ClientError("chain_unavailable", f"the chain of {name} does not answer yet", retry_after_ms=5000),
        )

    def _shut(self, name: str) -> None:
        del self._idle_since[name]
        self._streams.pop(name, None)
        self._wanted_at.pop(name, None)
        channel = self._channels.pop(name, None)
        if channel is not None:
            self._interest.unwant(channel)
        self._metrics.channels.set(len(self._streams))

    def say_bye(self, code: CloseCode, after_ms: Callable[[], int]) -> None:
        """Send every client away; `after_ms` gives each its own delay, so that they don't come back at once."""
        now = self._clock()
        for session in list(self._sessions):
            session.send(encode(Bye(code=code, reconnect=code.reconnect, after_ms=after_ms())), now)
            session.close(code)

    @property
    def sessions(self) -> Iterable[Session]:
        """Return all open sessions."""
        return self._sessions.keys()
