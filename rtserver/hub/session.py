"""One client's outbox: frames go straight to the transport until the client lags, then nothing does.

The written rule for slow clients: over `LAG_BYTES` unsent the client is lagging and no change is written.
Once drained it gets one merged change per channel, or a snapshot, as many as fit under that limit, and the
rest when it has drained again. After `SLOW_S` without draining it is sent away. So a laggard costs its
transport's buffer, at most one channel's snapshot over the limit, and a few integers. A channel joined in mode "latest"
is held back the same way as soon as anything is unsent: its client wants the newest state, not each step.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Final, Protocol, TypeAlias

from ..wire.codes import CloseCode
from ..wire.frames import text_frame
from .stream import Stream

__all__ = ["LAG_BYTES", "SLOW_S", "Outlet", "RequestId", "Session"]

# A transport's buffer grows by a frame a block; 64 KiB is half a minute of a busy owner.
LAG_BYTES: Final = 64 * 1024
SLOW_S: Final = 15.0

_CHANNEL: Final = attrgetter("channel")

# What a client calls its request; every reply repeats it.
RequestId: TypeAlias = int | str | None


class Outlet(Protocol):
    """Where a session's bytes go: the part of asyncio.Transport that it needs."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def get_write_buffer_size(self) -> int:
        """Return the bytes not yet taken by the kernel."""

    def is_closing(self) -> bool:
        """Return whether nothing more can be written."""

    def abort(self) -> None:
        """Drop the connection and what is unsent."""


class Session:
    """One open client socket.

    Args:
        name: Random, for logs and the client's own reports.
        outlet: The socket's transport.
        now: Monotonic seconds at opening.
        on_close: Called once with the close code when the server ends the session.
        send_now: Where the outlet has one, its socket's own way: hands bytes to the kernel and returns how many it
            took, or raises OSError. Only called while the outlet has nothing unsent.
    """

    __slots__ = (
        "_on_close", "_send_now", "awaiting_pong_since", "closing", "direct", "held", "joined", "lag_since",
        "last_write", "latest", "name", "order", "outlet", "owed", "pending", "replied_bytes", "written",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        outlet: Outlet,
        now: float,
        on_close: Callable[[CloseCode], None],
        send_now: Callable[[bytes], int] | None = None,
    ) -> None:
        self.name = name
        self.outlet = outlet
        self._send_now = send_now
        # `send_now` while a frame may go that way as it is, None otherwise: one look for each delivered message, where
        # to ask the transport takes four, and what they touch lies all over memory. Whatever could end that sets
        # None: every other write, a lag, a channel in mode "latest". See `regain`.
        self.direct: Callable[[bytes], int] | None = None
        self.closing = False
        # Channel → stream, in the order of joining; and in an order that doesn't depend on that, None until asked for.
        self.joined: dict[str, Stream] = {}
        self.order: tuple[Stream, ...] | None = None
        # Channels asked for whose state is still being read → (request id, mode "latest") to answer.
        self.pending: dict[str, list[tuple[RequestId, str | None, bool]]] = {}
        # Streams joined in mode "latest", and those of them with changes held back → the seq written last.
        self.latest: set[Stream] = set()
        self.held: dict[Stream, int] = {}
        self.last_write = now
        self.awaiting_pong_since: float | None = None
        # While lagging: since when, and each channel's seq that was written last.
        self.lag_since: float | None = None
        self.written: dict[Stream, int] = {}
        # Requests to answer when it catches up, oldest first → (request id, whether `subscribed` is due, too).
        self.owed: dict[Stream, list[tuple[RequestId, bool]]] = {}
        # Replies written since the lag began.
        self.replied_bytes = 0
        self._on_close = on_close

    def join(self, stream: Stream, *, latest: bool) -> None:
        """Note a stream as joined, in mode "latest" or not."""
        self.joined[stream.channel] = stream
        self.order = None
        if latest:
            self.latest.add(stream)
            self.direct = None
        else:
            self.latest.discard(stream)

    def leave(self, stream: Stream) -> None:
        """Forget a stream, and what was owed of it."""
        self.joined.pop(stream.channel, None)
        self.order = None
        self.written.pop(stream, None)
        self.held.pop(stream, None)
        self.owed.pop(stream, None)
        self.latest.discard(stream)

    def in_order(self) -> tuple[Stream, ...]:
        """Return the joined streams in the order that they have for every session."""
        self.order = tuple(sorted(self.joined.values(), key=_CHANNEL))
        return self.order

    def lag(self, now: float) -> None:
        """Begin to lag."""
        self.lag_since = now
        self.replied_bytes = 0
        self.direct = None

    def regain(self) -> Callable[[bytes], int] | None:
        """Return the socket's own way, for this frame and those to come, if a frame may go it as it is."""
        if (
            self._send_now is not None
            and self.lag_since is None
            and not self.latest
            and not self.outlet.get_write_buffer_size()
            and not self.outlet.is_closing()
        ):
            self.direct = self._send_now
        return self.direct

    def write(self, frame: bytes, now: float) -> None:
        """Write a frame, or what is left of one, whatever is still unsent."""
        self.direct = None
        if not self.outlet.is_closing():
            self.outlet.write(frame)
            self.last_write = now

    def send(self, message: bytes, now: float) -> None:
        """Write a message."""
        self.write(text_frame(message), now)

    def owes(self) -> int:
        """Return how many requests wait for their answers."""
        return sum(map(len, self.pending.values())) + sum(map(len, self.owed.values()))

    def reply(self, message: bytes, now: float) -> None:
        """Write a message that a client asked for; one that reads nothing can't ask for ever."""
        if self.lag_since is not None:
            self.replied_bytes += len(message)
        self.send(message, now)

    def is_full(self) -> bool:
        """Return whether so much is unsent that no change may be added."""
        return self.outlet.get_write_buffer_size() > LAG_BYTES

    def close(self, code: CloseCode) -> None:
        """End the session with a close code; whoever reads the socket does the rest."""
        if not self.closing:
            self.closing = True
            self.direct = None
            self._on_close(code)
