"""Channels that turned out not to be, for a while: to find that out costs reads, and whoever asks once asks again.

What only isn't there yet (an owner's first position, a token id that is minted next) is an open channel with nothing in
it, which the chain fills. Here is what can't be, such as the pool that an address isn't.
"""

from collections import OrderedDict
from typing import Final

from ..domain.errors import ClientError

__all__ = ["Refusals"]

# An address may become a pool, and nothing tells when.
_KEPT_S: Final = 10.0
# Names, some hundred bytes each, that many addresses may ask for within that time.
_MOST: Final = 10_000
# Others say that it didn't work this time.
_FINAL: Final = "bad_channel"


class Refusals:
    """The refusals of the last seconds."""

    def __init__(self) -> None:
        # In the order of time.
        self._known: OrderedDict[str, tuple[float, ClientError]] = OrderedDict()

    def note(self, name: str, error: ClientError, now: float) -> None:
        """Remember why a channel will not be, unless that may be otherwise the next time."""
        if error.code != _FINAL:
            return
        self._known.pop(name, None)
        self._known[name] = (now + _KEPT_S, error)
        while self._known and (len(self._known) > _MOST or next(iter(self._known.values()))[0] <= now):
            self._known.popitem(last=False)

    def of(self, name: str, now: float) -> ClientError | None:
        """Return why a channel will not be, None where that has to be found out."""
        known = self._known.get(name)
        return known[1] if known is not None and known[0] > now else None

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._known)
