"""What HTTP sources said last, and until when it may be used. Pure: answers are laid in, and taken at a block.

Decides freshness by the wall clock: these sources know nothing of blocks. Never asks anybody.
"""

from collections.abc import Callable, Mapping
from typing import Final

from ..domain.ids import Address
from .quotes import Quote

__all__ = ["Outside"]

# Clocks differ: a little of the future is now, more is a mistake.
_AHEAD_S: Final = 120


class Outside:
    """The newest answers of all HTTP sources about one chain.

    Args:
        max_age_s: By source, the age past which an answer is not used, in seconds.
        clock: Seconds since the epoch.
    """

    def __init__(self, max_age_s: Mapping[str, int], clock: Callable[[], float]) -> None:
        self._max_age_s = dict(max_age_s)
        self._clock = clock
        self._offered: dict[str, dict[Address, Quote]] = {}
        self._taken: dict[tuple[str, Address], Quote] = {}
        # When the first of the taken answers becomes too old.
        self._until = 0.0

    def offer(self, source: str, quotes: Mapping[Address, Quote]) -> None:
        """Lay in answers; an older one than what is known changes nothing."""
        known = self._offered.setdefault(source, {})
        for token, quote in quotes.items():
            if token not in known or known[token].as_of <= quote.as_of:
                known[token] = quote

    def take(self) -> set[Address]:
        """Use what was laid in and drop what has become too old; return the tokens that this changes."""
        now, changed = self._clock(), set()
        for source, quotes in self._offered.items():
            for token, quote in quotes.items():
                old = self._taken.get((source, token))
                newer = old is None or old.as_of <= quote.as_of
                if newer and old != quote and self._is_fresh(source, quote, now):
                    self._taken[source, token] = quote
                    changed.add(token)
            quotes.clear()
        if changed or now > self._until:
            for (source, token), quote in list(self._taken.items()):
                if not self._is_fresh(source, quote, now):
                    del self._taken[source, token]
                    changed.add(token)
            self._until = min((self._end(source, quote) for (source, _), quote in self._taken.items()), default=now)
        return changed

    def quote(self, source: str, token: Address) -> Quote | None:
        """Return what a source says of a token, None where that is nothing, or was too old at the last `take`."""
        return self._taken.get((source, token))

    def _end(self, source: str, quote: Quote) -> int:
        return quote.as_of + self._max_age_s.get(source, 0)

    def _is_fresh(self, source: str, quote: Quote, now: float) -> bool:
        return quote.as_of <= now + _AHEAD_S and now <= self._end(source, quote)
