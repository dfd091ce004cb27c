"""When to come back: full jitter, so that a restarted server is not met by everyone at once."""

import random
from collections.abc import Callable
from typing import Final

__all__ = ["MAX_DELAY_S", "MIN_DELAY_S", "STABLE_S", "Backoff"]

MIN_DELAY_S: Final = 0.5
MAX_DELAY_S: Final = 20.0
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
        self._attempt = 0

    def reset(self) -> None:
        """Start over at the short delays."""
        self._attempt = 0

    def next_s(self) -> float:
        """Return the next delay in seconds: uniform between the shortest and a limit that doubles."""
        self._attempt += 1
        # 2^16 is past any sensible ratio of the two limits; unbounded, the power would overflow a float.
        limit = min(self._max_s, self._min_s * 2.0 ** min(self._attempt, 16))
        return self._min_s + self._random_unit() * max(limit - self._min_s, 0.0)
