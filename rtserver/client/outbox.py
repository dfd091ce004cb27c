"""Messages on their way to the server, no faster than it takes them. Knows nothing of their meaning."""

from collections import deque
from typing import Final

from ..wire.messages import ClientMessage, encode

__all__ = ["Outbox"]

# The server takes 10 messages a second with a burst of 20; staying below leaves room for pongs.
SEND_BURST: Final = 16.0
SEND_PER_S: Final = 8.0


class Outbox:
    """A queue behind a token bucket. It holds at most a few requests a channel, so it needs no bound."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._urgent: deque[bytes] = deque()
        self._tokens = SEND_BURST
        self._refilled_at: float | None = None

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self._waiting) + len(self._urgent)

    def put(self, message: ClientMessage, *, urgent: bool = False) -> None:
        """Queue a message; an urgent one (a pong has a deadline) goes out at once, whatever the pace."""
        (self._urgent if urgent else self._waiting).append(encode(message))

    def clear(self) -> None:
        """Forget everything and start with a full bucket: a new connection, a new budget."""
        self._waiting.clear()
        self._urgent.clear()
        self._tokens, self._refilled_at = SEND_BURST, None

    def take(self, now: float) -> list[bytes]:
        """Return what may be sent now, in order."""
        if self._refilled_at is not None:
            self._tokens = min(SEND_BURST, self._tokens + (now - self._refilled_at) * SEND_PER_S)
        self._refilled_at = now
        taken = list(self._urgent)
        self._urgent.clear()
        self._tokens -= len(taken)
        while self._waiting and self._tokens >= 1:
            self._tokens -= 1
            taken.append(self._waiting.popleft())
        return taken

    def next_at(self, now: float) -> float | None:
        """Return when the next message may be sent, None if none waits."""
        if self._urgent:
            return now
        if not self._waiting:
            return None
        since = self._refilled_at if self._refilled_at is not None else now
        return max(now, since + max(1 - self._tokens, 0.0) / SEND_PER_S)
