"""When to come back: soon after a short absence, and with full jitter: a restarted server is not met by all at once."""

import random
from collections.abc import Callable
from typing import Final

__all__ = ["AWAY_SHARE", "MAX_DELAY_S", "MIN_DELAY_S", "STABLE_S", "Backoff"]

MIN_DELAY_S: Final = 0.5
MAX_DELAY_S: Final = 20.0
# The first delays are up to this many times the shortest.
_FIRST_FACTOR: Final = 2.0
# No delay is longer than this share of what was waited already: whoever was away for 4 s is back 0.6 s after the
# server on average, and not 2.3 s as with limits that double. All come back over at least as long as after a drop.
AWAY_SHARE: Final = 0.5
# A connection that lasted this long was a good one: the next drop starts at the short delays again.
STABLE_S: Final = 10.0


class Backoff:
    """Delays between attempts.

    Args:
        min_s: The shortest delay.
        max_s: The longest delay.
        random_unit: Returns a float in [0, 1).
    """

    def __init__(
        self,
        *,
        min_s: float = MIN_DELAY_S,
        max_s: float = MAX_DELAY_S,
        random_unit: Callable[[], float] = random.random,
    ) -> None:
        self._min_s, self._max_s, self._random_unit = min_s, max_s, random_unit
        self._waited_s = 0.0

    def reset(self) -> None:
        """Start over at the short delays."""
        self._waited_s = 0.0

    def next_s(self) -> float:
        """Return the next delay in seconds: uniform between the shortest and a limit that grows with the absence."""
        limit = min(self._max_s, max(_FIRST_FACTOR * self._min_s, AWAY_SHARE * self._waited_s))
        delay_s = self._min_s + self._random_unit() * max(limit - self._min_s, 0.0)
        self._waited_s += delay_s
        return delay_s
