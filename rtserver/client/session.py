"""The client's side of `rtserver.v1` as a state machine: messages and time in, events and messages out.

It decides what is applied, healed, resumed, retried and given up; it opens no socket, reads no clock and
never waits. `RtClient` is the thin shell around it.

A watched channel is in one of these phases:

    phase    | means                                   | leaves it by
    ---------+-----------------------------------------+------------------------------------------------------
    IDLE     | nothing asked on this connection (yet)  | a connection, or the retry time: subscribe → JOINING
    JOINING  | subscribe sent                          | snapshot or `subscribed` → LIVE; error → IDLE or given up
    LIVE     | the copy is exact                       | a change that doesn't fit, a checksum, `seqs` → HEALING
    HEALING  | resync sent                             | snapshot → LIVE; error → IDLE
    any      |                                         | the connection ends → IDLE

Changes are applied in LIVE only. Otherwise they are held, and after the snapshot those that it doesn't
cover are applied.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, Literal, assert_never, get_args

import msgspec

from ..domain.errors import ClientError
from ..domain.shards import is_in
from ..wire.codes import PROTOCOL, ErrorCode
from ..wire.messages import (
    Auth,
    Block,
    BlockRefMessage,
    Bye,
    ChangeMessage,
    ErrorMessage,
    Heartbeat,
    Pong,
    Resync,
    ServerMessage,
    Snapshot,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Welcome,
    decode_server,
)
from .events import Beat, BlockUpdate, Connected, Event, Failed, Mismatch, Stats, Update
from .outbox import Outbox
from .replica import Replica, Verdict, change_of
from .roster import MAX_HELD, Phase, Roster, Watch

__all__ = ["Session"]

# A subscribe or resync without an answer is asked again; a server's own limit for a cold load is shorter.
ANSWER_TIMEOUT_S: Final = 20.0
# A server whose snapshots contradict their own checksums will not get better by asking.
MAX_WRONG_SNAPSHOTS: Final = 3
# Silence past the heartbeat's own interval: the time that the server gives a pong, too.
SILENCE_GRACE_S: Final = 10.0
_RETRY_S: Final = (0.5, 30.0)
_TRANSIENT: Final = frozenset({ErrorCode.RATE, ErrorCode.CHAIN_UNAVAILABLE, ErrorCode.LOAD_TIMEOUT})
_KNOWN_TYPES: Final = frozenset(message.__struct_config__.tag for message in get_args(ServerMessage))


class Session:
    """All channels of one client over all its connections.

    Args:
        token: Sent with `auth` on every connection, where the server wants one.
        grace_s: Silence beyond the heartbeat's interval after which a connection counts as dead.
    """

    def __init__(self, *, token: str | None = None, grace_s: float = SILENCE_GRACE_S) -> None:
        self.stats = Stats()
        self.bye: Bye | None = None
        self.outbox = Outbox()
        self._token = token
        self._grace_s = grace_s
        self._roster = Roster()
        self._leaving: set[str] = set()
        self._welcomes = 0
        self._is_welcome = False
        self._heartbeat_s = 15.0
        self._heard_at = 0.0

    # --- what the application wants --------------------------------------------------------------------

    def want(self, name: str, now: float) -> Update | None:
        """Watch a channel; return its state where it is known already."""
        watch = self._roster.get(name)
        if watch is None:
            watch = self._roster.add(Watch(Replica(name), {name}, due=now))
            if self._is_welcome:
                self._subscribe(watch, now)
            return None
        watch.names.add(name)
        return self._update(watch, "snapshot") if watch.replica.is_whole else None

    def drop(self, name: str) -> None:
        """Stop watching a channel under this spelling; it is left when no spelling is wanted any more."""
        watch = self._roster.get(name)
        if watch is None:
            return
        watch.names.discard(name)
        if not watch.names:
            self._roster.forget(watch)
            if self._is_welcome and watch.phase is not Phase.IDLE:
                channel = watch.replica.channel
                self._leaving.add(Roster.key(channel))
                self.outbox.put(Unsubscribe(channel=channel, id=self._roster.new_id()))

    def replica(self, name: str) -> Replica | None:
        """Return a channel's copy by any of its spellings."""
        watch = self._roster.get(name)
        return None if watch is None else watch.replica

    def phase(self, name: str) -> Phase | None:
        """Return where a channel stands."""
        watch = self._roster.get(name)
        return None if watch is None else watch.phase

    @property
    def replicas(self) -> Mapping[str, Replica]:
        """Return every whole copy by the server's spelling."""
        return {watch.replica.channel: watch.replica for watch in self._roster.all() if watch.replica.is_whole}

    @property
    def checksum_ok(self) -> bool:
        """Return whether no copy's newest checksum is wrong."""
        return all(watch.replica.is_proved is not False for watch in self._roster.all())

    # --- what the connection does ----------------------------------------------------------------------

    def connected(self, now: float) -> None:
        """Take note of a new connection; everything else waits for its `welcome`."""
        self._end_connection(now)
        self._heard_at = now

    def disconnected(self, now: float) -> None:
        """Take note of a connection's end: every channel is asked for again, from its cursor, on the next."""
        self._end_connection(now)

    def is_silent(self, now: float) -> bool:
        """Return whether the server has been silent for longer than it promised."""
        return now >= self.silent_at

    @property
    def silent_at(self) -> float:
        """Return when the connection counts as dead if nothing more is heard."""
        return self._heard_at + self._heartbeat_s + self._grace_s

    def next_at(self, now: float) -> float:
        """Return when to call `tick` and `outbox.take` again, if nothing happens before."""
        times = [self.silent_at]
        if (next_message := self.outbox.next_at(now)) is not None:
            times.append(next_message)
        if self._is_welcome:
            times.extend(watch.due for watch in self._roster.all() if watch.phase is not Phase.LIVE)
        return max(now, min(times))

    def tick(self, now: float) -> None:
        """Ask again for what was not answered in time, and for what was to be retried."""
        if not self._is_welcome:
            return
        for watch in self._roster.all():
            if watch.phase is Phase.LIVE or now < watch.due:
                continue
            if watch.phase is Phase.HEALING:
                self._send_resync(watch, "unanswered", now)
            else:
                self._subscribe(watch, now)

    def receive(self, data: str | bytes, now: float) -> list[Event]:
        """Take one message and return what it means for the application, in order."""
        self._heard_at = now
        try:
            message = decode_server(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # A later version may say more than this one understands. A change lost here shows as a gap.
            if _is_unknown(data):
                self.stats.unknown += 1
            else:
                self.stats.invalid += 1
            return []
        match message:
            case Welcome():
                return self._on_welcome(message, now)
            case Snapshot():
                return self._on_snapshot(message, now)
            case Subscribed():
                return self._on_subscribed(message, now)
            case Unsubscribed():
                self._leaving.discard(Roster.key(message.channel))
                return []
            case Block():
                return self._on_block(message, now)
            case Heartbeat():
                return self._on_heartbeat(message, now)
            case ErrorMessage():
                return self._on_error(message, now)
            case Bye():
                self.bye = message
                return []
            case _:
                assert_never(message)

    # --- messages --------------------------------------------------------------------------------------

    def _on_welcome(self, message: Welcome, now: float) -> list[Event]:
        if message.protocol != PROTOCOL:
            error = ClientError("bad_request", f"the server speaks {message.protocol}, this client {PROTOCOL}")
            return [Failed(names=frozenset(), error=error)]
        self._is_welcome = True
        self._welcomes += 1
        self._heartbeat_s = message.heartbeat_ms / 1000
        again = self._welcomes > 1
        self.stats.reconnects += again
        if self._token is not None:
            self.outbox.put(Auth(token=self._token))
        for watch in self._roster.all():
            watch.failures = 0
            self._subscribe(watch, now)
        return [
            Connected(
                session=message.session, heartbeat_s=self._heartbeat_s, limits=message.limits,
                heads=message.heads, again=again,
            )
        ]  # fmt: skip

    def _on_snapshot(self, message: Snapshot, now: float) -> list[Event]:
        watch = self._roster.find(message.id, message.channel)
        if watch is None:
            if Roster.key(message.channel) in self._leaving:
                return []
            # `/ws/positions/{tokenId}` comes already subscribed.
            watch = self._roster.add(Watch(Replica(message.channel), set(), Phase.JOINING))
        watch.due = now + ANSWER_TIMEOUT_S  # each part is progress
        verdict = watch.replica.take(message)
        if verdict is Verdict.PARTIAL:
            return []
        if verdict is Verdict.CHECKSUM:
            return [self._mismatch(watch, message.block, "snapshot"), *self._heal_snapshot(watch, now)]
        self.stats.snapshots += 1
        self.stats.proofs += 1
        watch.wrong_snapshots = 0
        self._go_live(watch)
        first = self._update(watch, "snapshot", proved=True)
        caught_up, _ = self._apply_held(watch, now)
        return [first, *caught_up]

    def _on_subscribed(self, message: Subscribed, now: float) -> list[Event]:
        watch = self._roster.find(message.id, message.channel)
        if watch is None or message.how != "resumed" or watch.phase is not Phase.JOINING:
            return []  # after a snapshot it says nothing new
        if message.id != watch.request:
            return []  # a copy went on from its cursor that is not kept any more, or was asked for again since
        if watch.replica.epoch != message.epoch:
            self._resync(watch, "epoch", now)
            return []
        self._go_live(watch)
        caught_up, all_fit = self._apply_held(watch, now)
        if not all_fit:
            return caught_up
        if watch.replica.seq != message.seq:
            self._resync(watch, "missed", now)
            return caught_up
        self.stats.resumed += 1
        return [*caught_up, self._update(watch, "resumed")]

    def _on_block(self, frame: Block, now: float) -> list[Event]:
        self.stats.frames += 1
        self.stats.rollbacks += frame.rollback is not None
        updates: list[Update] = []
        mismatches: list[Event] = []
        for change in frame.changes:
            watch = self._roster.get(change.channel)
            if watch is None:
                continue
            if watch.phase is not Phase.LIVE:
                watch.held.append((change, frame))
                continue
            verdict = watch.replica.apply(change, frame.block)
            if verdict is Verdict.APPLIED:
                updates.append(self._applied(watch, change, frame))
            else:
                if verdict is Verdict.CHECKSUM:
                    mismatches.append(self._mismatch(watch, frame.block, "change"))
                self._resync(watch, verdict.value, now)
        return [*mismatches, self._block_update(frame, updates)]

    def _on_heartbeat(self, message: Heartbeat, now: float) -> list[Event]:
        self.outbox.put(Pong(), urgent=True)
        mismatches: list[Event] = []
        for channel, seq in message.seqs.items():
            watch = self._roster.get(channel)
            if watch is None or watch.phase is not Phase.LIVE:
                continue
            checksum = message.checksums.get(channel)
            if watch.replica.seq != seq:
                self._resync(watch, "missed", now)
            elif checksum is not None:
                if watch.replica.confirm(checksum):
                    self.stats.proofs += 1
                else:
                    mismatches.append(self._mismatch(watch, watch.replica.block, "heartbeat"))
                    self._resync(watch, Verdict.CHECKSUM.value, now)
        return [*mismatches, Beat(heads=message.heads)]

    def _on_error(self, message: ErrorMessage, now: float) -> list[Event]:
        error = ClientError(message.code, message.message, retry_after_ms=message.retry_after_ms)
        watch = None if message.id is None else self._roster.end_request(message.id)
        if watch is None:
            return [] if message.id is not None else [Failed(names=frozenset(), error=error)]
        was_healing = watch.phase is Phase.HEALING
        watch.phase, watch.request = Phase.IDLE, None
        watch.failures += 1
        retry_s = min(_RETRY_S[1], _RETRY_S[0] * 2.0 ** min(watch.failures, 8))
        watch.due = now + (retry_s if message.retry_after_ms is None else message.retry_after_ms / 1000)
        # Someone waits for the first answer and should hear what is wrong; later the copy is worth retrying for.
        if message.code in _TRANSIENT and (watch.replica.is_whole or message.code == ErrorCode.RATE):
            return []
        if watch.replica.cursor is not None or was_healing:
            watch.replica.cursor = None  # whatever was wrong with going on, starting anew is still open
            return []
        self._roster.forget(watch)
        return [Failed(names=frozenset(watch.names), error=error)]

    # --- steps of a channel ----------------------------------------------------------------------------

    def _subscribe(self, watch: Watch, now: float) -> None:
        if not watch.names:
            return
        replica = watch.replica
        self._ask(watch, Phase.JOINING, now)
        self.outbox.put(Subscribe(channel=replica.channel, id=watch.request, cursor=replica.cursor))

    def _resync(self, watch: Watch, reason: str, now: float) -> None:
        self.stats.resyncs += 1
        self.stats.reasons[reason] = self.stats.reasons.get(reason, 0) + 1
        self._send_resync(watch, reason, now)

    def _send_resync(self, watch: Watch, reason: str, now: float) -> None:
        watch.replica.forget_parts()
        self._ask(watch, Phase.HEALING, now)
        self.outbox.put(Resync(channel=watch.replica.channel, id=watch.request, reason=reason))

    def _heal_snapshot(self, watch: Watch, now: float) -> list[Event]:
        watch.wrong_snapshots += 1
        if watch.wrong_snapshots < MAX_WRONG_SNAPSHOTS:
            self._resync(watch, Verdict.CHECKSUM.value, now)
            return []
        self._roster.forget(watch)
        times = f"{watch.wrong_snapshots} snapshots in a row contradict their checksums"
        return [Failed(names=frozenset(watch.names), error=ClientError("unrecoverable", times))]

    def _ask(self, watch: Watch, phase: Phase, now: float) -> None:
        self._roster.assign(watch)
        watch.phase, watch.due = phase, now + ANSWER_TIMEOUT_S
        watch.held.clear()

    def _go_live(self, watch: Watch) -> None:
        watch.phase, watch.failures = Phase.LIVE, 0

    def _apply_held(self, watch: Watch, now: float) -> tuple[list[Event], bool]:
        """Apply what came in meanwhile; False if something did not fit and a resync is on its way."""
        events: list[Event] = []
        held, watch.held = watch.held, deque(maxlen=MAX_HELD)
        for change, frame in held:
            verdict = watch.replica.apply_held(change, frame.block)
            if verdict is Verdict.APPLIED:
                events.append(self._block_update(frame, (self._applied(watch, change, frame),)))
            elif verdict is not Verdict.COVERED:
                if verdict is Verdict.CHECKSUM:
                    events.append(self._mismatch(watch, frame.block, "change"))
                self._resync(watch, verdict.value, now)
                return events, False
        return events, True

    def _applied(self, watch: Watch, change: ChangeMessage, frame: Block) -> Update:
        self.stats.applied += 1
        self.stats.proofs += change.checksum is not None
        return self._update(watch, "change", change, frame, proved=change.checksum is not None)

    def _mismatch(
        self, watch: Watch, block: BlockRefMessage, on: Literal["snapshot", "change", "heartbeat"]
    ) -> Mismatch:
        self.stats.mismatches += 1
        ours, theirs = watch.replica.last_sums or (0, 0)
        channel = watch.replica.channel
        return Mismatch(channel=channel, block=block, ours=ours, theirs=theirs, on=on)

    def _block_update(self, frame: Block, updates: Iterable[Update]) -> BlockUpdate:
        watches = self._roster.all()
        inexact = {watch.replica.channel for watch in watches if watch.phase is not Phase.LIVE}
        if frame.shard is not None:
            names = {watch.replica.channel for watch in watches}
            inexact |= {name for name in names if not _is_told(name, frame.chain_id, frame.shard)}
        return BlockUpdate(
            chain_id=frame.chain_id, block=frame.block, changes=tuple(updates), rollback=frame.rollback,
            inexact=frozenset(inexact),
        )  # fmt: skip

    @staticmethod
    def _update(
        watch: Watch,
        kind: Literal["snapshot", "change", "resumed"],
        change: ChangeMessage | None = None,
        frame: Block | None = None,
        *,
        proved: bool = False,
    ) -> Update:
        replica = watch.replica
        return Update(
            channel=replica.channel, kind=kind, epoch=replica.epoch, seq=replica.seq, block=replica.block,
            state=replica.state, change=None if change is None else change_of(change),
            rollback=None if frame is None else frame.rollback, proved=proved,
        )  # fmt: skip

    # --- bookkeeping -----------------------------------------------------------------------------------

    def _end_connection(self, now: float) -> None:
        self._is_welcome = False
        self.bye = None
        self.outbox.clear()
        self._roster.end_requests()
        self._leaving.clear()
        for watch in self._roster.all():
            watch.phase, watch.request, watch.due = Phase.IDLE, None, now
            watch.held.clear()
            watch.replica.forget_parts()
            if not watch.names:
                self._roster.forget(watch)  # the server subscribes us to it again by itself, or not


def _is_told(channel: str, chain_id: int, shard: str) -> bool:
    """Return whether a frame of a shard says what it has to say of a channel."""
    try:
        return channel.split(":")[1:2] != [str(chain_id)] or is_in(channel, shard)
    except (ValueError, ZeroDivisionError):
        return False


def _is_unknown(data: str | bytes) -> bool:
    """Return whether it is a message of a type that this version doesn't know, rather than a broken one."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(value, dict) and isinstance(value.get("type"), str) and value["type"] not in _KNOWN_TYPES
