"""Who may connect and how fast anyone may send. Pure: told the time, decides at once, forgets what is past."""

from collections import Counter, OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

__all__ = ["AtOnce", "Bucket", "Rates", "party"]

# Parties that are remembered for their rate, 300 bytes each. Past this, whoever was silent longest is forgotten and
# starts anew: to gain by that, one needs this many addresses of one's own between two requests.
_MAX_PARTIES: Final = 10_000
# Who has one IPv6 address has the 2^64 of its network.
_IPV6_PARTY_BITS: Final = 64


def party(address: str) -> str:
    """Return whose address it is, as far as limits go: an IPv4 address, or an IPv6 network of 64 bits.

    What is not an address (a socket of another family) stands for itself.
    """
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> _IPV6_PARTY_BITS << _IPV6_PARTY_BITS))


class Bucket:
    """How much may still be done: `burst` at once, `rate` a second."""

    __slots__ = ("_at", "_burst", "_left", "_rate", "strikes")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate, self._burst, self._left, self._at = rate, burst, float(burst), now
        # How often in a row there was nothing to take.
        self.strikes = 0

    def left(self, now: float) -> int:
        """Return how many may be taken now."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return int(self._left)

    def spend(self, count: int) -> None:
        """Take several, of those that are `left`."""
        self._left -= count

    def take(self, now: float) -> float:
        """Return 0 and take one, or the seconds until one is there."""
        if self.left(now) >= 1:
            self._left -= 1
            self.strikes = 0
            return 0.0
        self.strikes += 1
        return (1 - self._left) / self._rate


class Rates:
    """How often each party may do something, for those heard of lately. No step looks at all of them.

    Of each party one time is remembered: when it will have everything back (GCRA, the generic cell rate algorithm).

    Args:
        per_minute: What a party may do a minute.
        burst: What it may do at once; None for a minute's worth.
    """

    def __init__(self, per_minute: float, burst: int | None = None) -> None:
        # Whole nanoseconds: a minute's worth of roundings would cost the last one, or give one away.
        self._cost_ns = max(round(60e9 / per_minute), 1)
        self._reach_ns = self._cost_ns * (round(per_minute) if burst is None else burst)
        # Whoever was heard of last is last.
        self._whole_at: OrderedDict[str, int] = OrderedDict()

    def take(self, address: str, now: float) -> float:
        """Return 0 where an address may do it once more, else the seconds to wait."""
        key, now_ns = party(address), int(now * 1e9)
        whole_at = self._whole_at.get(key)
        if whole_at is None:
            self._forget(now_ns)
            whole_at = now_ns
        then = max(whole_at, now_ns) + self._cost_ns
        over_ns = then - now_ns - self._reach_ns
        self._whole_at[key] = then if over_ns <= 0 else whole_at
        self._whole_at.move_to_end(key)
        return max(over_ns, 0) / 1e9

    def _forget(self, now_ns: int) -> None:
        """Forget those who are owed nothing any more, and make room for one."""
        while self._whole_at:
            key, whole_at = next(iter(self._whole_at.items()))
            if len(self._whole_at) < _MAX_PARTIES and whole_at > now_ns:
                return
            del self._whole_at[key]

    def __len__(self) -> int:
        """Return how many parties are remembered."""
        return len(self._whole_at)


class AtOnce:
    """What each party has open; bounded by what is open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one; return whether the address may have it. `leave` has to follow either way."""
        key = party(address)
        self._open[key] += 1
        return self._open[key] <= self._most

    def leave(self, address: str) -> None:
        """Count one off."""
        key = party(address)
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]

    def __len__(self) -> int:
        """Return how many parties have something open."""
        return len(self._open)
