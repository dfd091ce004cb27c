"""Gives positions that have just been read the windows that were recorded of them, so that rates go on after a restart.

A few positions at a time, beside the blocks; nobody waits for it. What the database can't tell now is asked for again
after a pause, and until then the windows are those of this process alone: shorter, never wrong.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from ..domain.chain import Header
from ..domain.errors import PermanentError, RetryableError
from ..domain.ids import TokenId
from ..protocols.earning import PastSample

__all__ = ["PastSamples", "Seeding", "Seeds"]

log = structlog.get_logger(__name__)

# Positions a query: some 2,000 rows, which cost the event loop ten milliseconds.
_AT_ONCE: Final = 30
_PAUSE_S: Final = 30.0


class Seeds(Protocol):
    """What is asked of a book of positions; see protocols.base."""

    def await_seeds(self) -> None:
        """Note that each of them is going to be seeded, if only with nothing."""

    def unseeded(self, limit: int) -> list[TokenId]:
        """Return positions whose windows begin with this process, and that may have older ones."""

    def seed(self, token_id: TokenId, samples: Sequence[PastSample]) -> None:
        """Begin a position's windows with what was kept of it."""


class PastSamples(Protocol):
    """Where records are; see `reading.Past`."""

    async def samples(
        self, protocol: str, token_ids: Sequence[TokenId], now: int
    ) -> Mapping[TokenId, list[PastSample]]:
        """Return what is kept of some positions for windows that end at a time in seconds, oldest first."""


class Seeding:
    """One chain's.

    Args:
        name: The chain's name in logs.
        books: Its books by kind.
        past: Where records are.
        is_proved: Returns whether all that is recorded is known to be of the chain.
        head: Returns the newest block that was published.
    """

    def __init__(
        self,
        *,
        name: str,
        books: Mapping[str, Seeds],
        past: PastSamples,
        is_proved: Callable[[], bool],
        head: Callable[[], Header | None],
    ) -> None:
        self._name = name
        self._books = books
        for book in books.values():
            book.await_seeds()
        self._past = past
        self._is_proved = is_proved
        self._head = head
        self._turns = 0
        self._news = asyncio.Event()

    def reorged(self) -> None:
        """Blocks left the chain: what is being read may be of them."""
        self._turns += 1

    def published(self) -> None:
        """A step is out: more positions may have been read."""
        self._news.set()

    async def run(self) -> None:
        """Seed what may be seeded, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while await self._seed_some():
                    await asyncio.sleep(0)
            except (RetryableError, PermanentError) as error:
                log.info("windows are not continued yet", chain=self._name, error=str(error))
                await asyncio.sleep(_PAUSE_S)
                self._news.set()

    async def _seed_some(self) -> bool:
        """Seed a few positions; return whether there may be more."""
        head = self._head()
        if head is None or not self._is_proved():
            return False
        is_more = False
        for kind, book in self._books.items():
            token_ids = book.unseeded(_AT_ONCE)
            if not token_ids:
                continue
            turns = self._turns
            found = await self._past.samples(kind, token_ids, head.timestamp)
            if turns != self._turns or not self._is_proved():
                return False  # asked again with the next block
            for token_id in token_ids:
                book.seed(token_id, found.get(token_id, ()))
            is_more = True
        return is_more
