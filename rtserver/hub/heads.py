"""Each chain's newest head and when it was published. Never follows a chain: it is told.

Where several engines share a chain, each of its shards has a head of its own: what the states of that shard are of. The
chain's is that of the shard that is farthest behind: everything that is served is of that block, or of a later one.
"""

from collections.abc import Callable

from ..domain.chain import Header
from ..domain.errors import ClientError
from ..domain.ids import ChainId
from ..wire.messages import HeadMessage
from .stream import Stream

__all__ = ["Heads"]


class Heads:
    """The newest block of every chain.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # By chain and shard.
        self._known: dict[ChainId, dict[str, tuple[Header, float]]] = {}

    def __contains__(self, chain_id: object) -> bool:
        """Return whether a chain was heard of."""
        return chain_id in self._known

    def _last(self, chain_id: ChainId) -> tuple[Header, float] | None:
        known = self._known.get(chain_id)
        return None if known is None else min(known.values(), key=lambda one: (one[0].number, one[1]))

    def of(self, stream: Stream) -> Header:
        """Return the block that a stream's state is of.

        Raises:
            ClientError: `chain_unavailable`: it is closed, and its chain was forgotten.
        """
        return self._at(stream)[0]

    def age_of_ms(self, stream: Stream) -> int:
        """Return how long ago that block was published."""
        return int((self._clock() - self._at(stream)[1]) * 1000)

    def _at(self, stream: Stream) -> tuple[Header, float]:
        try:
            return self._known[stream.chain_id][stream.shard]
        except KeyError:
            text = f"the engines of {stream.channel} have just been replaced; try again"
            raise ClientError("chain_unavailable", text, retry_after_ms=2000) from None

    def of_shard(self, chain_id: ChainId, shard: str) -> Header | None:
        """Return the newest block of a shard, None before any."""
        known = self._known.get(chain_id, {}).get(shard)
        return None if known is None else known[0]

    def get(self, chain_id: ChainId) -> Header | None:
        """Return the newest block, None before any."""
        last = self._last(chain_id)
        return None if last is None else last[0]

    def take(self, chain_id: ChainId, header: Header, now: float, shard: str = "") -> None:
        """Take note of a new block."""
        self._known.setdefault(chain_id, {})[shard] = (header, now)

    def forget(self, chain_id: ChainId) -> None:
        """Know nothing of a chain any more."""
        self._known.pop(chain_id, None)

    def age_ms(self, chain_id: ChainId) -> int | None:
        """Return how long ago the newest block was published."""
        last = self._last(chain_id)
        return None if last is None else int((self._clock() - last[1]) * 1000)

    def messages(self) -> dict[str, HeadMessage]:
        """Return all of them as clients are told."""
        now = self._clock()
        lasts = {chain_id: self._last(chain_id) for chain_id in self._known}
        return {str(chain_id): _message(*last, now) for chain_id, last in lasts.items() if last is not None}


def _message(header: Header, at: float, now: float) -> HeadMessage:
    return HeadMessage(
        number=header.number, hash=header.hash, timestamp=header.timestamp, age_ms=int((now - at) * 1000)
    )
