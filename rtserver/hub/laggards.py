"""Clients that don't take what they are sent: who lags, who is held back, and when they go on.

The rule is in `session.py`: nothing that holds state is written to a laggard until everything is sent; it is
sent away if that takes too long. Never writes a change itself: catching up does.
"""

from collections.abc import Callable, Collection, Mapping

from ..obs.metrics import Metrics
from ..wire.codes import CloseCode
from .catching_up import NOWHERE, CatchingUp
from .session import SLOW_S, Session
from .stream import Stream

__all__ = ["Laggards"]


class Laggards:
    """All sessions that lag or hold something back.

    Args:
        catching_up: Brings them to now.
        metrics: Where lags are counted.
        clock: Monotonic seconds.
    """

    def __init__(self, catching_up: CatchingUp, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._catching_up = catching_up
        self._metrics = metrics
        self._clock = clock
        self.lagging: dict[Session, None] = {}
        self.holding: dict[Session, None] = {}

    def is_lagging(self, session: Session) -> bool:
        """Return whether nothing that holds state may be written now; a full buffer begins a lag."""
        if session.lag_since is None and session.is_full():
            self.begin(session, self._clock())
        return session.lag_since is not None

    def begin(self, session: Session, now: float, *, amid_step: bool = False) -> None:
        """Let a session lag; amid a step, streams that tell something have moved on, but nothing of it was written."""
        session.lag(now)
        session.written = {
            stream: session.held.get(stream, stream.seq - 1 if amid_step and stream.fragment else stream.seq)
            for stream in session.joined.values()
        }
        session.held.clear()
        self.holding.pop(session, None)
        self.lagging[session] = None
        self._metrics.lagging.inc()

    def hold_back(self, session: Session, streams: tuple[Stream, ...]) -> tuple[Stream, ...]:
        """Note which of the streams wait until the client has taken what is unsent; return the others."""
        for stream in streams:
            if stream in session.latest:
                session.held.setdefault(stream, stream.seq - 1)
                self.holding[session] = None
        return tuple([stream for stream in streams if stream not in session.latest])

    def let_go(self, session: Session, due: dict[Stream, int], of: Stream | None = None) -> None:
        """Send what was held back; in a step, what comes from where one of its streams does, with what is due."""
        held, session.held = session.held, {}
        self.holding.pop(session, None)
        for stream, seq in held.items():
            if of is not None and (stream.chain_id, stream.shard) != (of.chain_id, of.shard):
                session.held[stream] = seq
                self.holding[session] = None
            else:
                due[stream] = seq
        self._bring(session, due)

    def lead_on(self, session: Session, places: Mapping[Stream, int]) -> None:
        """Bring streams of a session, which moved on by more than one step, from what was told last to now.

        What lags or is held back is so already from where it was.
        """
        if self.is_lagging(session):
            for stream, seq in places.items():
                session.written.setdefault(stream, seq)
            return
        places = {stream: seq for stream, seq in places.items() if stream not in session.held}
        if session.outlet.get_write_buffer_size():
            for stream in session.latest & places.keys():
                session.held[stream] = places.pop(stream)
                self.holding[session] = None
        self._bring(session, places)

    def begin_anew(self, session: Session, streams: Collection[Stream]) -> None:
        """Send snapshots of streams that a session holds nothing of any more, as soon as it takes them."""
        places = dict.fromkeys(streams, NOWHERE)
        if self.is_lagging(session):
            session.written.update(places)
            return
        if session.outlet.get_write_buffer_size():
            for stream in session.latest & places.keys():
                session.held[stream] = places.pop(stream)
                self.holding[session] = None
        for stream in places:
            session.held.pop(stream, None)
        self._bring(session, places)

    def _bring(self, session: Session, places: Mapping[Stream, int]) -> None:
        """Bring a session that doesn't lag to now; with what it can't take at once it begins to."""
        left = self._catching_up.bring(session, places)
        if left:
            self.begin(session, self._clock())
            session.written.update(left)

    def tend(self, now: float) -> None:
        """Look who has drained, and who will not."""
        for session in list(self.lagging):
            if session.outlet.get_write_buffer_size() == 0:
                self._go_on(session, now)
            elif session.lag_since is not None and now - session.lag_since > SLOW_S:
                session.close(CloseCode.SLOW)
        for session in list(self.holding):
            if not session.outlet.get_write_buffer_size():
                self.let_go(session, {})

    def _go_on(self, session: Session, now: float) -> None:
        """Bring a laggard that has drained to now: as far as its buffer goes, and the rest when that has drained."""
        written = session.written
        left = self._catching_up.bring(session, written)
        if left:
            # Those that waited come first next time, whatever changes meanwhile: so each gets its turn.
            session.written = left | {stream: stream.seq for stream in written if stream not in left}
            session.lag_since = now
        else:
            session.written, session.lag_since = {}, None
            del self.lagging[session]

    def forget(self, session: Session) -> None:
        """Forget a session that has ended."""
        self.lagging.pop(session, None)
        self.holding.pop(session, None)
