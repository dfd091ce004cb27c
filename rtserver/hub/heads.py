"""Each chain's newest head and when it was published. Never follows a chain: it is told."""

from collections.abc import Callable

from ..domain.chain import Header
from ..domain.ids import ChainId
from ..wire.messages import HeadMessage

__all__ = ["Heads"]


class Heads:
    """The newest block of every chain.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[ChainId, tuple[Header, float]] = {}

    def __contains__(self, chain_id: object) -> bool:
        """Return whether a chain was heard of."""
        return chain_id in self._known

    def __getitem__(self, chain_id: ChainId) -> Header:
        """Return the newest block of a chain that was heard of."""
        return self._known[chain_id][0]

    def get(self, chain_id: ChainId) -> Header | None:
        """Return the newest block, None before any."""
        known = self._known.get(chain_id)
        return None if known is None else known[0]

    def take(self, chain_id: ChainId, header: Header, now: float) -> None:
        """Take note of a new block."""
        self._known[chain_id] = (header, now)

    def age_ms(self, chain_id: ChainId) -> int | None:
        """Return how long ago the newest block was published."""
        known = self._known.get(chain_id)
        return None if known is None else int((self._clock() - known[1]) * 1000)

    def messages(self) -> dict[str, HeadMessage]:
        """Return all of them as clients are told."""
        now = self._clock()
        return {
            str(chain_id): HeadMessage(
                number=header.number, hash=header.hash, timestamp=header.timestamp, age_ms=int((now - at) * 1000)
            )
            for chain_id, (header, at) in self._known.items()
        }
