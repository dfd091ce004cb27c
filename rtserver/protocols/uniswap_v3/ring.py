"""What a position or a pool was at some moments of the last week, in a bounded number of bytes.

Counters only ever count on, and a value is kept as its sum over time, so a sample that is left out costs nothing but
where a window may begin: what was earned, and the mean value, are right for whatever window is left.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from ..earning import WINDOWS_S, PoolWindow, Window

__all__ = ["MAX_TIME", "SAMPLE_EVERY_S", "PoolRing", "Ring"]

# A sample each five minutes: so much longer than an hour may the hour's window be.
SAMPLE_EVERY_S: Final = 300
# (age in seconds, from which on samples stand so far apart): 12 + 17 + 18 and a few. Each tier reaches one spacing
# past its window, so that this begins no earlier than its own samples are apart.
_TIERS: Final = ((WINDOWS_S[1] + 5_400, 28_800), (WINDOWS_S[0] + 900, 5_400))
# Records after which they are thinned, so that not each sample pays for it: 6 kB for a position.
_MANY: Final = 72
_TIME: Final = 5  # bytes of a Unix time
# Later than this no chain's clock can mean.
MAX_TIME: Final = 1 << 39
_COUNTER: Final = 20  # a token's amounts are uint128: room for as many of them as there are seconds in a century
_SUM: Final = 16
_CENTS: Final = 10
_MAX_CENTS: Final = 1 << 78
_MASK_256: Final = (1 << 256) - 1


class _Records:
    """Records of one length, oldest first; each begins with its time."""

    __slots__ = ("_bytes",)
    # One object a position: the garbage collector walks them all.
    _width: int

    def __init__(self) -> None:
        self._bytes = bytearray()

    def time(self, index: int) -> int:
        start = index * self._width
        return int.from_bytes(self._bytes[start : start + _TIME])

    def __len__(self) -> int:
        return len(self._bytes) // self._width

    def __getitem__(self, index: int) -> bytes:
        start = index * self._width
        return bytes(self._bytes[start : start + self._width])

    def append(self, record: bytes) -> None:
        """Add the newest record, and once there are many, let go of those that no window has to begin with."""
        self._bytes += record
        if len(self) > _MANY:
            self._thin(int.from_bytes(record[:_TIME]))

    def _thin(self, now: int) -> None:
        times = [self.time(index) for index in range(len(self))]
        # Of all that are older than the longest window the newest is enough.
        first = max(sum(now - time >= WINDOWS_S[-1] for time in times) - 1, 0)
        kept = [first]
        for index in range(first + 1, len(times)):
            age = now - times[index]
            spacing = next((spacing for since, spacing in _TIERS if age > since), 0)
            # The one before a gap that would be too long stays.
            if index + 1 == len(times) or times[index + 1] - times[kept[-1]] >= spacing:
                kept.append(index)
        self._bytes = bytearray().join(self[index] for index in kept)

    def cut(self, time: int) -> None:
        """Forget all records of a time or later."""
        while len(self) and self.time(len(self) - 1) >= time:
            del self._bytes[-self._width :]

    def start(self, length_s: int, now: int) -> int | None:
        """Return which record a window begins with: the newest that is old enough, else the oldest."""
        count = len(self)
        if not count:
            return None
        return max(bisect_right(range(count), now - length_s, key=self.time) - 1, 0)


class Ring(_Records):
    """One position: what it has earned of each token, and what it was worth.

    Counters are raw units; only their differences mean anything.
    """

    __slots__ = ("_cents", "_priced_s", "_sum", "_time")
    _width = 2 * _TIME + 2 * _COUNTER + _SUM + _CENTS

    def __init__(self) -> None:
        super().__init__()
        self._time = 0
        self._cents: int | None = None
        # Twice the sum of cents × seconds, and the seconds that it is over.
        self._sum = self._priced_s = 0

    def add(self, time: int, counter0: int, counter1: int, cents: int | None) -> None:
        """Note what the position is at a time; between two of them its value goes in a straight line."""
        if cents is not None and cents >= _MAX_CENTS:
            cents = None
        if len(self) and time < self._time:
            self.rewind(time)
        if len(self):
            self._sum, self._priced_s = self._until(time, cents)
        self._time, self._cents = time, cents
        if not len(self) or time - self.time(len(self) - 1) >= SAMPLE_EVERY_S:
            self.append(_record(time, counter0, counter1, self._sum, self._priced_s, cents))

    def rewind(self, time: int) -> None:
        """Forget everything of a time or later."""
        if time > self._time:
            return
        self.cut(time)
        if len(self):
            self._time, _, _, self._sum, self._priced_s, self._cents = _fields(self[len(self) - 1])

    def is_empty(self) -> bool:
        """Return whether nothing is known."""
        return not len(self)

    @property
    def oldest(self) -> int:
        """Return the time of the oldest sample; only where there is one."""
        return self.time(0)

    def prepend(self, samples: Iterable[tuple[int, int, int, int | None]]) -> None:
        """Begin earlier: with samples, oldest first, from before the oldest that there is.

        Each is (time, counter0, counter1, cents) as `add` takes it; none may be left out but the newest.
        """
        older, first = Ring(), _fields(self[0])
        for time, counter0, counter1, cents in samples:
            if time < first[0]:
                older.add(time, counter0, counter1, cents)
        if older.is_empty():
            return
        # Only differences of sums mean anything: those that are here go on from where the older ones end.
        total, priced_s = older._until(first[0], first[5])
        for index in range(len(self)):
            time, counter0, counter1, mine, mine_s, cents = _fields(self[index])
            older.append(
                _record(time, counter0, counter1, mine - first[3] + total, mine_s - first[4] + priced_s, cents)
            )
        self._bytes = older._bytes
        self._sum += total - first[3]
        self._priced_s += priced_s - first[4]

    def _until(self, time: int, cents: int | None) -> tuple[int, int]:
        if cents is None or self._cents is None:
            return self._sum, self._priced_s
        passed = time - self._time
        return self._sum + passed * (cents + self._cents), self._priced_s + passed

    def windows(self, now: int, counter0: int, counter1: int, cents: int | None) -> tuple[Window, ...]:
        """Return the windows that end now, as far as they are known."""
        total, priced_s = self._until(now, cents if cents is None or cents < _MAX_CENTS else None)
        windows = []
        for length_s in WINDOWS_S:
            index = self.start(length_s, now)
            if index is None or self.time(index) >= now:
                continue
            time, start0, start1, before, priced_before, _ = _fields(self[index])
            covered_s = now - time
            is_priced = priced_s - priced_before == covered_s
            windows.append(
                Window(
                    length_s=length_s,
                    covered_s=covered_s,
                    # A collect of another NFT in the same range can take a unit away again.
                    fees0=max(counter0 - start0, 0),
                    fees1=max(counter1 - start1, 0),
                    mean_cents=(total - before + covered_s) // (2 * covered_s) if is_priced else None,
                )
            )
        return tuple(windows)


def _record(time: int, counter0: int, counter1: int, total: int, priced_s: int, cents: int | None) -> bytes:
    return (
        time.to_bytes(_TIME)
        + counter0.to_bytes(_COUNTER, signed=True)
        + counter1.to_bytes(_COUNTER, signed=True)
        + total.to_bytes(_SUM)
        + priced_s.to_bytes(_TIME)
        + (0 if cents is None else cents + 1).to_bytes(_CENTS)
    )


def _fields(record: bytes) -> tuple[int, int, int, int, int, int | None]:
    """Return (time, counter0, counter1, sum, priced seconds, cents)."""
    at = 0

    def take(width: int, *, signed: bool = False) -> int:
        nonlocal at
        at += width
        return int.from_bytes(record[at - width : at], signed=signed)

    time, counter0, counter1 = take(_TIME), take(_COUNTER, signed=True), take(_COUNTER, signed=True)
    total, priced_s, cents = take(_SUM), take(_TIME), take(_CENTS)
    return time, counter0, counter1, total, priced_s, cents - 1 if cents else None


class PoolRing(_Records):
    """One pool: its fee growth, Q128.128 modulo 2^256."""

    __slots__ = ()
    _width = _TIME + 64

    def add(self, time: int, growth0: int, growth1: int) -> None:
        """Note the growth at a time, if that is long enough after the last."""
        count = len(self)
        if not count or time - self.time(count - 1) >= SAMPLE_EVERY_S:
            self.append(time.to_bytes(_TIME) + growth0.to_bytes(32) + growth1.to_bytes(32))

    def prepend(self, samples: Iterable[tuple[int, int, int]]) -> None:
        """Begin earlier: with (time, growth0, growth1), oldest first, from before the oldest that there is."""
        older, first = PoolRing(), self.time(0)
        for time, growth0, growth1 in samples:
            if time < first:
                older.add(time, growth0, growth1)
        self._bytes[:0] = older._bytes

    def windows(self, now: int, growth0: int, growth1: int) -> tuple[PoolWindow, ...]:
        """Return the growth over the windows that end now."""
        windows = []
        for length_s in WINDOWS_S:
            index = self.start(length_s, now)
            if index is None or self.time(index) >= now:
                continue
            record = self[index]
            before0, before1 = int.from_bytes(record[_TIME : _TIME + 32]), int.from_bytes(record[_TIME + 32 :])
            windows.append(
                PoolWindow(
                    length_s=length_s,
                    covered_s=now - self.time(index),
                    growth0=(growth0 - before0) & _MASK_256,
                    growth1=(growth1 - before1) & _MASK_256,
                )
            )
        return tuple(windows)
