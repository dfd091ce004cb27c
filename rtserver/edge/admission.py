"""Who may connect and how fast anyone may send. Pure: told the time, decides at once, forgets what is past."""

from collections import Counter
from typing import Final

__all__ = ["Admission", "Bucket"]

# Addresses that are remembered for their rate. Past this, those that are owed nothing any more are forgotten.
_MAX_ADDRESSES: Final = 10_000


class Bucket:
    """How much may still be done: `burst` at once, `rate` a second."""

    __slots__ = ("_at", "_burst", "_left", "_rate", "strikes")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate, self._burst, self._left, self._at = rate, burst, float(burst), now
        # How often in a row there was nothing to take.
        self.strikes = 0

    def take(self, now: float) -> float:
        """Return 0 and take one, or the seconds until one is there."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            self.strikes = 0
            return 0.0
        self.strikes += 1
        return (1 - self._left) / self._rate

    def is_full(self, now: float) -> bool:
        """Return whether a new bucket would be the same."""
        return self._left + (now - self._at) * self._rate >= self._burst


class Admission:
    """The sockets of each address: how many are open, and how many were opened lately.

    Args:
        at_once: Sockets that an address may have.
        per_minute: Sockets that an address may open a minute; as many at once.
    """

    def __init__(self, at_once: int, per_minute: int) -> None:
        self._at_once = at_once
        self._per_minute = per_minute
        self._open: Counter[str] = Counter()
        self._lately: dict[str, Bucket] = {}

    def knock(self, address: str, now: float) -> float:
        """Return 0 where an address may open one more socket a minute, else the seconds to wait."""
        bucket = self._lately.get(address)
        if bucket is None:
            if len(self._lately) >= _MAX_ADDRESSES:
                self._forget(now)
            bucket = self._lately[address] = Bucket(self._per_minute / 60, self._per_minute, now)
        return bucket.take(now)

    def _forget(self, now: float) -> None:
        for address in [address for address, bucket in self._lately.items() if bucket.is_full(now)]:
            del self._lately[address]

    def enter(self, address: str) -> bool:
        """Count a socket; return whether the address may have it. `leave` has to follow either way."""
        self._open[address] += 1
        return self._open[address] <= self._at_once

    def leave(self, address: str) -> None:
        """Count a socket off."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]

    def __len__(self) -> int:
        """Return how many addresses have a socket."""
        return len(self._open)
