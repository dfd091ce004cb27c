"""What is known of one endpoint: how fast it answers, how often it fails, what it has seen of the chain. Pure."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ...domain.chain import Header

__all__ = ["Health", "View"]

# Weight of the newest value: an endpoint that turns bad shows it within ten calls.
_NEWEST: Final = 0.2
# Latencies kept for the 95th percentile, by purpose and of all: enough for three values above it.
_KEPT: Final = 64
# Fewer say nothing of a tail.
_ENOUGH: Final = 16
# The first look includes opening the connection.
_SETTLED: Final = 4
# Endpoints that answer within this are equally fast.
_SAME_S: Final = 0.01
# An endpoint that did not have a block is asked last for so long, or until it shows that it has caught up.
_BEHIND_S: Final = 2.0


class View(StrEnum):
    """How an endpoint's chain is to ours."""

    UNKNOWN = "unknown"
    SAME = "same"
    BEHIND = "behind"
    # It has another block at a height of ours: it is on another fork, and its view is not to be believed.
    OTHER = "other"


@dataclass(slots=True)
class _Latency:
    mean_s: float
    last: deque[float]
    count: int = 0
    p95_s: float | None = None


class Health:
    """The state of one endpoint."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latency: dict[str, _Latency] = {}
        self._last_s: deque[float] = deque(maxlen=_KEPT)
        self.error_rate = 0.0
        self.in_flight = 0
        self.head: Header | None = None
        self.view = View.UNKNOWN
        self._last_success_at: float | None = None
        self.last_error: str | None = None
        self.is_failing = False
        self._rests_until = 0.0
        self._behind_until = 0.0

    def succeeded(self, purpose: str, seconds: float) -> None:
        """Note an answer and how long it took."""
        self._last_success_at = self._clock()
        self.is_failing = False
        self.error_rate -= _NEWEST * self.error_rate
        known = self._latency.get(purpose)
        if known is None:
            known = self._latency[purpose] = _Latency(seconds, deque(maxlen=_KEPT))
        known.mean_s += _NEWEST * (seconds - known.mean_s)
        known.last.append(seconds)
        self._last_s.append(seconds)
        known.count += 1
        # Sorting 64 numbers at every answer would be a tenth of what an answer costs.
        if known.count % 8 == 0 and len(known.last) >= _ENOUGH:
            known.p95_s = _quantile(sorted(known.last), 0.95)

    def failed(self, kind: str) -> None:
        """Note that there was no answer."""
        self.is_failing = True
        self.last_error = kind
        self.error_rate += _NEWEST * (1 - self.error_rate)

    def given_up(self) -> None:
        """Note that a second endpoint, asked later, was faster: this one is asked last until it has answered again.

        The next look at it is such an answer. Otherwise each read would have to be hedged anew, and the budget for
        that is meant for a tail.
        """
        self.is_failing = True

    def pace(self) -> int:
        """Return a rough class of speed, by looks at it alone, as these are alike everywhere: doubled is one more."""
        known = self._latency.get("probe")
        if known is None or known.count < _SETTLED:
            return 0
        return int(known.mean_s / _SAME_S).bit_length()

    def p95_s(self, purpose: str) -> float | None:
        """Return how long all but a twentieth of the last answers took; None while there are too few."""
        known = self._latency.get(purpose)
        return None if known is None else known.p95_s

    def latency_s(self) -> tuple[float, float] | None:
        """Return the median and the 95th percentile of the last answers of all kinds; None before the first."""
        last = sorted(self._last_s)
        return (_quantile(last, 0.5), _quantile(last, 0.95)) if last else None

    @property
    def last_success_s(self) -> float | None:
        """Return for how long there was no answer; None where there never was one."""
        return None if self._last_success_at is None else self._clock() - self._last_success_at

    # --- rests ----------------------------------------------------------------------------------------

    def rest(self, seconds: float) -> None:
        """Leave it alone for so long; a longer rest stands."""
        self._rests_until = max(self._rests_until, self._clock() + seconds)

    @property
    def rests_s(self) -> float:
        """Return for how much longer it is to be left alone."""
        return max(self._rests_until - self._clock(), 0.0)

    # --- its view of the chain ------------------------------------------------------------------------

    def saw(self, head: Header) -> None:
        """Note the newest block that it has told of; it may go back."""
        self.head = head

    def reached(self, block: Header) -> None:
        """Note that it answered from a block: it is at least so high."""
        if self.head is None or block.number > self.head.number:
            self.head = block

    def lacked(self, height: int | None, for_s: float = _BEHIND_S) -> None:
        """Note that it did not have a block that another endpoint has; it is asked last for so long."""
        if height is not None and self.head is not None and self.head.number >= height:
            self.view = View.OTHER
        else:
            self._behind_until = self._clock() + for_s
            if self.view is not View.OTHER:
                self.view = View.BEHIND

    def had(self) -> None:
        """Note that it has a recent block of ours."""
        self._behind_until = 0.0
        self.view = View.SAME

    def is_other(self) -> None:
        """Note that it has another block than ours at one height."""
        self.view = View.OTHER

    def lacks(self, height: int | None) -> bool:
        """Return whether it is not expected to have a block of ours at this height (None: a recent one)."""
        if self.view is not View.BEHIND:
            return False
        if height is not None and self.head is not None and self.head.number >= height:
            return False
        return self._clock() < self._behind_until


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the least value that this share of all does not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1]
