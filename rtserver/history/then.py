"""What a pool's tokens were worth at a time, from what was recorded near it of the positions in that pool.

A record has a value and the amounts that it is of; the pool's price at the record's block splits it into the prices of
the two tokens. So they are those that this server had, to some hundredths of a percent.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from ..domain.errors import RetryableError
from ..domain.ids import Address, ChainId, TokenId
from ..protocols.base import Prices, ThenQuery
from ..store.records import Valued
from .reading import ChainHistory

__all__ = ["NEAR_S", "HistoryThen", "prices_of"]

# How far a record may be from the time: as long as records of a position that nothing happens to are apart.
NEAR_S: Final = 900
_ALL: Final = (1 << 63) - 1

# A deployment: chain, protocol, and what tells it from others.
Place: TypeAlias = tuple[ChainId, str, str]


class Shelf(Protocol):
    """Where records are; see store.history."""

    async def nearest(
        self, place: Place, token_ids: Sequence[TokenId], *, at: int, within: int, below: int
    ) -> Valued | None:
        """Return the record with a value that is nearest to a time, of any of some positions."""


class HistoryThen:
    """The histories of all chains, as a source of prices of then.

    Args:
        shelf: Where records are.
        chains: The chains, by id.
    """

    name = "history"

    def __init__(self, shelf: Shelf, chains: Mapping[ChainId, ChainHistory]) -> None:
        self._shelf = shelf
        self._chains = chains

    async def prices(self, chain_id: ChainId, protocol: str, query: ThenQuery) -> Prices:
        """Return what was recorded near the query's time, nothing where that is nothing.

        Raises:
            RetryableError, PermanentError: The database can't be read, or it isn't known what of it is on the chain.
        """
        chain = self._chains.get(chain_id)
        if chain is None:
            return {}
        if not chain.writer.is_proved:
            raise RetryableError("the chain has not told yet which records are on it")
        reach = chain.backlog.reach
        found = await self._shelf.nearest(
            (chain_id, protocol, chain.identities[protocol]),
            query.positions,
            at=query.at,
            within=NEAR_S,
            below=_ALL if reach is None else reach + 1,
        )
        if found is None:
            return {}
        known = prices_of(found, query.pair)
        return {token: cents for token, cents in known.items() if token in query.tokens}


def prices_of(record: Valued, pair: tuple[Address, Address]) -> dict[Address, int]:
    """Return the prices of a pair that a record tells, US cents × 2^128 per smallest unit, rounded down.

    value = amount0 × p0 + amount1 × p1, and p0 / p1 is the pool's price, square / 2^192.
    """
    square = record.sqrt_price_x96 * record.sqrt_price_x96
    held = record.amount0 * square + (record.amount1 << 192)  # in token1 × 2^192
    if not held or not square:
        return {}
    cents1 = (record.value_cents << (128 + 192)) // held
    return {pair[0]: cents1 * square >> 192, pair[1]: cents1}
