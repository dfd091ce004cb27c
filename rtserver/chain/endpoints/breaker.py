"""A circuit breaker for one endpoint: purgatory's states, with three of its traps closed.

purgatory takes the time from the wall clock, which jumps: an hour back would shut an endpoint out for an hour,
so the time is kept here, on a monotonic clock. It refuses by raising one exception object again and again,
whose traceback grows by three frames each time: here it is never asked while open. And half open it lets
everybody through: here one call goes ahead and tells.
"""

import time
from collections.abc import Callable
from typing import Final

from purgatory.domain.model import CLOSED, OPENED, Context, HalfOpenedState

__all__ = ["Breaker"]

# One failure is a hiccup, three in a row are an outage; hedges and retries count too.
_FAILURES: Final = 3
# How long an endpoint that is out is not asked; each failed try doubles it.
_OUT_S: Final = 1.0
_OUT_MAX_S: Final = 30.0


class Breaker:
    """Whether an endpoint may be asked, by what its last calls came to."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # The time to live is never looked at: see above.
        self._context = Context(name, _FAILURES, _OUT_S)
        self._out_s = _OUT_S
        self._again_at = 0.0
        self._is_trying = False

    @property
    def state(self) -> str:
        """Return "closed" (all is well), "opened" (not to be asked) or "half-opened" (one call tries)."""
        return str(self._context.state)

    @property
    def is_letting(self) -> bool:
        """Return whether a call may be made now."""
        if self._context.state == CLOSED:
            return True
        return not self._is_trying and self._clock() >= self._again_at

    def begin(self) -> None:
        """Note that a call is made, allowed or not: with no other endpoint left, one that is out is asked anyway."""
        if self._context.state == CLOSED:
            return
        if self._context.state == OPENED:
            self._context.set_state(HalfOpenedState())
        self._is_trying = True
        self._context.messages.clear()

    def succeeded(self) -> None:
        """Note that a call was answered, whatever the answer."""
        if self._context.state == CLOSED and not self._context.failure_count:
            return
        if self._context.state == OPENED:
            # Begun before it opened; the endpoint lives all the same.
            self._context.set_state(HalfOpenedState())
        self._context.handle_end_request()
        self._context.messages.clear()
        self._is_trying = False
        self._out_s = _OUT_S

    def failed(self, error: Exception) -> None:
        """Note that a call was not answered."""
        was_closed = self._context.state == CLOSED
        if self._context.state == OPENED:
            return
        self._context.handle_exception(error)
        self._context.messages.clear()
        self._is_trying = False
        if self._context.state == OPENED:
            if not was_closed:
                self._out_s = min(2 * self._out_s, _OUT_MAX_S)
            self._again_at = self._clock() + self._out_s

    def abandoned(self) -> None:
        """Note that a call was given up by us: that says nothing of the endpoint."""
        self._is_trying = False
