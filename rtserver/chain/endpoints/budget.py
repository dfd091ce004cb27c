"""How often something may be done: a token bucket.

throttled-py's costs 4 µs a call, which would do, but counts in whole tokens and whole seconds of the wall
clock, and says how long to wait only when it refuses; this one is told the time, and asked before it is used.
"""

import time
from collections.abc import Callable

__all__ = ["Budget"]


class Budget:
    """Tokens that come at a rate, up to a burst.

    Args:
        per_s: Tokens a second; None is no limit.
        burst: How many may be saved up. More than that at once is let through in debt, paid off before the next.
        clock: Monotonic seconds.
    """

    def __init__(self, per_s: float | None, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._at = clock()

    @property
    def is_limited(self) -> bool:
        """Return whether there is a rate at all."""
        return self._per_s is not None

    def wait_s(self, tokens: float = 1.0) -> float:
        """Return for how many seconds these tokens are not to be had."""
        if self._per_s is None:
            return 0.0
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        missing = min(tokens, self._burst) - self._tokens
        return missing / self._per_s if missing > 0 else 0.0

    def take(self, tokens: float = 1.0) -> None:
        """Use up tokens."""
        if self._per_s is not None:
            self._tokens -= tokens
