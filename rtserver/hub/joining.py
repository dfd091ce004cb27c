"""Requests of clients: joining a channel without a gap, leaving it, and starting anew.

Registering, reading the state and queueing the snapshot are one step of the event loop, so no change can fall
between them. A cold channel is awaited by nobody: the request is noted, and what opens the channel answers it.
"""

from collections.abc import Callable
from typing import Final

from ..domain.errors import ClientError
from ..protocols.channels import Channel
from ..wire.cursor import parse_cursor
from ..wire.messages import Unsubscribed, encode
from .catching_up import NOWHERE, CatchingUp
from .laggards import Laggards
from .limits import Limits
from .openings import Openings
from .session import RequestId, Session
from .stream import Stream

__all__ = ["Joining"]

# Requests of a session that wait for a cold channel or the end of a lag: one a channel is what clients need, the
# second is for those that ask again. Each is a few integers that nobody else would ever forget.
_REQUESTS_A_CHANNEL: Final = 2
_OWED_RETRY_MS: Final = 1000


class Joining:
    """Joins sessions to streams.

    Args:
        openings: Which channels are open.
        laggards: Who must not be written to.
        catching_up: Writes what a join needs.
        limits: What one client may do.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        openings: Openings,
        laggards: Laggards,
        catching_up: CatchingUp,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self._openings = openings
        self._laggards = laggards
        self._catching_up = catching_up
        self._limits = limits
        self._clock = clock

    def subscribe(
        self, session: Session, channel: Channel, request_id: RequestId, cursor: str | None, *, latest: bool
    ) -> None:
        """Join a session to a channel: at once where it is open, else as soon as it has been read.

        Raises:
            ClientError: `limit` when the session has too many channels, `rate` when too many requests wait.
        """
        name = channel.name
        count = len(session.joined) + len(session.pending)
        if name not in session.joined and name not in session.pending and count >= self._limits.channels:
            raise ClientError(
                "limit",
                f"a connection may have {self._limits.channels} channels; unsubscribe from one, or open another",
            )
        stream = self._openings.streams.get(name)
        if stream is None or self._laggards.is_lagging(session):
            self._check_owed(session)
        if stream is not None:
            self.join(session, stream, request_id, cursor, latest=latest)
        else:
            self._openings.wait(session, channel, request_id, cursor, latest=latest)

    def unsubscribe(self, session: Session, channel: Channel, request_id: RequestId) -> None:
        """Take a session off a channel. Not being on it is no error."""
        name = channel.name
        stream = session.joined.get(name)
        if stream is not None:
            self.leave(session, stream)
        if name in session.pending:
            self._openings.stop_waiting(session, name)
        session.reply(encode(Unsubscribed(channel=name, id=request_id)), self._clock())

    def resync(self, session: Session, channel: Channel, request_id: RequestId) -> None:
        """Send a snapshot to a session that lost its place.

        Raises:
            ClientError: As `subscribe`.
        """
        stream = session.joined.get(channel.name)
        if stream is None:
            self.subscribe(session, channel, request_id, None, latest=False)
        elif self._laggards.is_lagging(session):
            self._check_owed(session)
            session.written[stream] = NOWHERE
            session.owed.setdefault(stream, []).append((request_id, False))
        else:
            self._catching_up.snapshot(session, stream, request_id)

    def join(
        self, session: Session, stream: Stream, request_id: RequestId, cursor: str | None, *, latest: bool
    ) -> None:
        """Join a session to an open channel."""
        session.join(stream, latest=latest)
        session.held.pop(stream, None)
        stream.listeners[session] = None
        self._openings.keep(stream.channel)
        place = None if cursor is None else parse_cursor(cursor)
        seq = place.seq if place is not None and stream.resumable(place) else NOWHERE
        if self._laggards.is_lagging(session):
            # What joins is owed like a change: a client that asks and doesn't read costs no memory.
            session.written[stream] = seq
            session.owed.setdefault(stream, []).append((request_id, True))
        else:
            session.owed[stream] = [(request_id, True)]
            self._catching_up.bring(session, {stream: seq})

    def _check_owed(self, session: Session) -> None:
        """Refuse a request that would have to be remembered, where enough are."""
        if session.owes() >= _REQUESTS_A_CHANNEL * self._limits.channels:
            text = "too many of your requests wait for their answers: what is not open yet is being read"
            raise ClientError("rate", text, retry_after_ms=_OWED_RETRY_MS)

    def leave(self, session: Session, stream: Stream) -> None:
        """Take a session off a stream."""
        stream.listeners.pop(session, None)
        session.leave(stream)
        if not stream.listeners:
            self._openings.linger(stream.channel)
