"""Which sockets live: a heartbeat to whoever was not written to for a while, and an end where no pong comes.

A heartbeat proves the client's copies, too: all of its channels have been quiet since it was last written to,
and what was changed on the way would not show before the next change.
"""

from collections.abc import Callable, Iterable
from typing import Final

from ..wire.codes import CloseCode
from ..wire.messages import HeadMessage, Heartbeat, encode
from .catching_up import NOWHERE
from .heads import Heads
from .limits import Limits
from .session import Session

__all__ = ["Heartbeats"]

# Objects summed anew in one look, 10 µs each: a channel's sum is known from then on to all who hear of it, and a
# channel that there was no time for is proved by the next heartbeat.
_OBJECTS_A_LOOK: Final = 1000


class Heartbeats:
    """Asks idle sessions whether they are there.

    Args:
        heads: What heartbeats tell.
        limits: After how long one is due, and answered.
        wall_ms: Milliseconds since the epoch.
    """

    def __init__(self, heads: Heads, limits: Limits, wall_ms: Callable[[], int]) -> None:
        self._heads = heads
        self._limits = limits
        self._wall_ms = wall_ms

    def look(self, sessions: Iterable[Session], now: float) -> None:
        """Look at all sessions; called about once a second."""
        limits = self._limits
        heads: dict[str, HeadMessage] | None = None
        budget = _OBJECTS_A_LOOK
        for session in sessions:
            waiting_since = session.awaiting_pong_since
            if waiting_since is not None:
                if now - waiting_since > limits.pong_s:
                    session.close(CloseCode.NO_PONG)
            elif now - session.last_write >= limits.heartbeat_s and session.lag_since is None:
                heads = heads or self._heads.messages()
                held = session.held
                seqs, checksums = {}, {}
                for name, stream in session.joined.items():
                    if stream in held:
                        # Without a place of its own the client waits for a snapshot.
                        if held[stream] != NOWHERE:
                            seqs[name] = held[stream]
                        continue
                    seqs[name] = stream.seq
                    objects = stream.unsummed()
                    # The last one may exceed it: so the turn of a large channel comes, too.
                    if not objects or budget > 0:
                        budget -= objects
                        checksums[name] = stream.checksum()
                beat = Heartbeat(time=self._wall_ms(), heads=heads, seqs=seqs, checksums=checksums)
                session.send(encode(beat), now)
                session.awaiting_pong_since = now
