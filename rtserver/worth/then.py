"""What tokens were worth at positions' own events, where no block's state tells: one question at a time, nobody waits.

Asked are a history of one's own, then DefiLlama, each for what is still unknown. What neither knows stays unknown:
null rather than wrong.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

import structlog

from ..domain.errors import PermanentError, RetryableError
from ..domain.ids import Address, ChainId
from ..protocols.base import Book, Prices, ThenQuery
from .defillama import DefiLlama
from .http_asker import HttpAsker
from .quotes import Quote

__all__ = ["LlamaThen", "PricesThen", "ThenSource"]

log = structlog.get_logger(__name__)

# Between two looks at what is wanted while nothing is.
_IDLE_S: Final = 1.0
# Questions to one source before it is gone on without: its breaker is open by then.
_TRIES: Final = 3
# Answers that are kept: positions are often changed together, and the past stays what it was.
_KEPT: Final = 1_000


class ThenSource(Protocol):
    """Who may know prices of then."""

    name: str

    async def prices(self, chain_id: ChainId, protocol: str, query: ThenQuery) -> Prices:
        """Return US cents × 2^128 per smallest unit of those of the query's tokens that are known.

        Raises:
            RetryableError, PermanentError: Nothing can be told now, or ever.
        """


class PricesThen:
    """Asks for all chains.

    Args:
        books: By chain and protocol.
        sources: Whom to ask, the best first.
    """

    def __init__(self, books: Mapping[ChainId, Mapping[str, Book]], sources: Sequence[ThenSource]) -> None:
        self._books = books
        self._sources = sources
        for _, _, book in self._all():
            book.expect_then()

    def _all(self) -> Iterable[tuple[ChainId, str, Book]]:
        for chain_id, books in self._books.items():
            for protocol, book in books.items():
                yield chain_id, protocol, book

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            if not await self.step():
                await asyncio.sleep(_IDLE_S)

    async def step(self) -> bool:
        """Answer a question of each book that has one; return whether any had."""
        is_busy = False
        for chain_id, protocol, book in self._all():
            query = book.then_query()
            if query is None:
                continue
            is_busy = True
            known: dict[Address, int] = {}
            names: list[str] = []
            for source in self._sources:
                missing = tuple(token for token in query.tokens if token not in known)
                if not missing:
                    break
                found = await self._ask(source, chain_id, protocol, replace(query, tokens=missing))
                if found:
                    known |= found
                    names.append(source.name)
            book.absorb_then(query, known, "+".join(names))
        return is_busy

    async def _ask(self, source: ThenSource, chain_id: ChainId, protocol: str, query: ThenQuery) -> Prices:
        for _ in range(_TRIES):
            try:
                return await source.prices(chain_id, protocol, query)
            except PermanentError as error:
                log.info("price of then refused", source=source.name, at=query.at, error=str(error))
                return {}
            except RetryableError as error:
                log.info("price of then not known yet", source=source.name, at=query.at, error=str(error))
        return {}


class LlamaThen:
    """DefiLlama, within the budget that prices of now have, too.

    Args:
        source: Its interface.
        asker: Who asks it.
    """

    def __init__(self, source: DefiLlama, asker: HttpAsker) -> None:
        self.name = source.name
        self._source = source
        self._asker = asker
        self._kept: OrderedDict[tuple[ChainId, tuple[Address, ...], int], dict[Address, Quote]] = OrderedDict()

    async def prices(self, chain_id: ChainId, protocol: str, query: ThenQuery) -> Prices:
        """Return what it knows; see the port."""
        if not self._source.serves(chain_id):
            return {}
        key = chain_id, query.tokens, query.at
        found = self._kept.get(key)
        if found is None:
            while (rest_s := self._asker.rest_s) > 0:
                await asyncio.sleep(rest_s)
            read = partial(self._source.read_then, chain_id, query.tokens, query.at)
            found = self._kept[key] = await self._asker.get(
                self._source.ask_then(chain_id, query.tokens, query.at), read
            )
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        places = query.decimals
        return {
            token: cents
            for token, quote in found.items()
            if (cents := quote.price.cents_x128(places[token])) is not None
        }
