"""What positions have earned over time: a port that app joins, and what books and prices say of it."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from ..domain.diff import JsonValue
from ..domain.ids import ChainId, TokenId
from ..protocols.base import Book, Prices
from ..worth.earnings import earnings_view, glance_view

__all__ = ["UNKNOWN", "BookEarnings", "Earnings", "NoEarnings"]

# Each of these is null rather than wrong.
UNKNOWN: Final[Mapping[str, JsonValue]] = {
    "apr": None,
    "aprs": None,
    "poolApr": None,
    "pnl": None,
    "earned": None,
    "earnedAmountUSD": None,
}


class Earnings(Protocol):
    """Reckons what positions have earned."""

    def earned(self, chain_id: ChainId, protocol: str, token_id: TokenId, *, is_brief: bool) -> Mapping[str, JsonValue]:
        """Return what is known of a position, by the names in UNKNOWN; those that are missing are not known.

        `apr` is the rate of one window as text ("15.5%"), `aprs` the windows by name, `poolApr` the pool's own,
        `pnl` profit and loss, `earned` and `earnedAmountUSD` fees and rewards over life. As of the head; waits for
        nothing. `is_brief` asks for `apr` and `earnedAmountUSD` alone.
        """


class NoEarnings:
    """Knows nothing."""

    def earned(self, chain_id: ChainId, protocol: str, token_id: TokenId, *, is_brief: bool) -> Mapping[str, JsonValue]:
        """Return nothing."""
        return {}


class BookEarnings:
    """What the books know, at the prices of the same block.

    Args:
        books: By chain and protocol.
        prices: Returns a chain's prices.
    """

    def __init__(self, books: Mapping[ChainId, Mapping[str, Book]], prices: Callable[[ChainId], Prices]) -> None:
        self._books = books
        self._prices = prices

    def earned(self, chain_id: ChainId, protocol: str, token_id: TokenId, *, is_brief: bool) -> Mapping[str, JsonValue]:
        """Return what is known of a position; who asks for all of it has prices of then looked up for the next time."""
        book, prices = self._books[chain_id][protocol], self._prices(chain_id)
        earnings = book.earnings(token_id)
        if is_brief:
            return glance_view(earnings, prices)
        book.want_prices(token_id)
        return earnings_view(earnings, book.life(token_id), prices)
