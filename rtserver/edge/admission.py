"""Who may connect and how fast anyone may send. Pure: told the time, decides at once, forgets what is past."""

from collections import Counter, OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

from ..domain.errors import ClientError

__all__ = ["Admission", "AtOnce", "Bucket", "Loads", "Rates", "party"]

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

    def is_full(self, now: float) -> bool:
        """Return whether a new bucket would be the same."""
        return self._left + (now - self._at) * self._rate >= self._burst


class Rates:
    """A bucket for each party that was heard of lately; never more than so many, and no step looks at all of them.

    Args:
        per_minute: What a party may do a minute; as much at once.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        # Whoever was heard of last is last.
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, address: str, now: float) -> float:
        """Return 0 where an address may do it once more, else the seconds to wait."""
        key = party(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            self._forget(now)
            bucket = self._buckets[key] = Bucket(self._per_minute / 60, self._per_minute, now)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now)

    def _forget(self, now: float) -> None:
        """Forget those who are owed nothing any more, and make room for one."""
        while self._buckets:
            key, bucket = next(iter(self._buckets.items()))
            if len(self._buckets) < _MAX_PARTIES and not bucket.is_full(now):
                return
            del self._buckets[key]

    def __len__(self) -> int:
        """Return how many parties are remembered."""
        return len(self._buckets)


class Loads:
    """What each party may have read from the node: one account for its requests and all its sockets.

    Args:
        per_minute: Channels that nobody has opened yet, a minute; as many at once.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._rates = Rates(per_minute)

    def take(self, address: str, now: float) -> None:
        """Count one channel.

        Raises:
            ClientError: `rate`, when the account is empty.
        """
        wait_s = self._rates.take(address, now)
        if wait_s:
            text = f"at most {self._per_minute} channels that are not open yet a minute from an address"
            # A second more, because HTTP says whole seconds, rounded down.
            raise ClientError("rate", text, retry_after_ms=int(wait_s * 1000) + 1000)


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


class Admission:
    """The sockets of each party: how many are open, and how many were opened lately.

    Args:
        at_once: Sockets that a party may have.
        per_minute: Sockets that a party may open a minute; as many at once.
    """

    def __init__(self, at_once: int, per_minute: int) -> None:
        self._at_once = AtOnce(at_once)
        self._lately = Rates(per_minute)

    def knock(self, address: str, now: float) -> float:
        """Return 0 where an address may open one more socket a minute, else the seconds to wait."""
        return self._lately.take(address, now)

    def enter(self, address: str) -> bool:
        """Count a socket; return whether the address may have it. `leave` has to follow either way."""
        return self._at_once.enter(address)

    def leave(self, address: str) -> None:
        """Count a socket off."""
        self._at_once.leave(address)

    def __len__(self) -> int:
        """Return how many parties have a socket."""
        return len(self._at_once)
