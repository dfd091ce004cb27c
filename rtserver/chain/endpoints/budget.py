"""How often something may be done: a token bucket.

throttled-py's costs 4 µs a call, which would do, but counts in whole tokens and whole seconds of the wall
clock, and says how long to wait only when it refuses; this one is told the time, and asked before it is used.
"""

import math
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
    def per_s(self) -> float | None:
        """Return the rate in tokens a second; None is no limit."""
        return self._per_s

    @property
    def left(self) -> float:
        """Return how many tokens there are now, below 0 in debt; infinitely many without a rate."""
        if self._per_s is None:
            return math.inf
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        return self._tokens

    def wait_s(self, tokens: float = 1.0) -> float:
        """Return for how many seconds these tokens are not to be had."""
        if self._per_s is None:
            return 0.0
        missing = min(tokens, self._burst) - self.left
        return missing / self._per_s if missing > 0 else 0.0

    def take(self, tokens: float = 1.0) -> None:
        """Use up tokens."""
        if self._per_s is not None:
            self._tokens -= tokens
