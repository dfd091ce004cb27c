"""Prices from pools against dollar tokens: the deepest pool decides. Unknown is absent, never zero.

A dollar token counts as one dollar. A price is US cents per smallest unit of a token, times 2^128, rounded
down: an integer, so that a value is one multiplication and the same on every machine.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ..domain.ids import Address
from ..protocols.base import Prices, QuotePool

__all__ = ["PoolPrices"]

_DOLLAR_X128: Final = 100 << 128


class PoolPrices:
    """The price of every token that a pool against a dollar token can tell.

    Args:
        stablecoins: Tokens that count as one dollar, in no order.
    """

    def __init__(self, stablecoins: Iterable[Address]) -> None:
        self._stablecoins = frozenset(stablecoins)
        self._prices: dict[Address, int] = {}

    @property
    def prices(self) -> Prices:
        """Return the prices as of the last update."""
        return self._prices

    def update(
        self, quotes: Mapping[Address, Iterable[QuotePool]], decimals: Callable[[Address], int | None]
    ) -> frozenset[Address]:
        """Price these tokens anew; return those whose price changed.

        Args:
            quotes: All known pools of each token to price against a dollar token.
            decimals: A token's decimals, None while unknown.
        """
        changed = set()
        for stable in self._stablecoins:
            places = decimals(stable)
            if places is not None and stable not in self._prices:
                self._prices[stable] = _DOLLAR_X128 // 10**places
                changed.add(stable)
        for token, pools in quotes.items():
            price = self._price(token, pools, decimals)
            if price != self._prices.get(token):
                changed.add(token)
                if price is None:
                    del self._prices[token]
                else:
                    self._prices[token] = price
        return frozenset(changed)

    def _price(
        self, token: Address, pools: Iterable[QuotePool], decimals: Callable[[Address], int | None]
    ) -> int | None:
        best: tuple[int, Address, int] | None = None
        for pool in pools:
            stable = pool.token1 if pool.token0 == token else pool.token0
            places = decimals(stable)
            if places is None or not pool.liquidity or not pool.sqrt_price:
                continue
            square = pool.sqrt_price * pool.sqrt_price
            dollar = _DOLLAR_X128 // 10**places
            if pool.token0 == token:
                depth = pool.liquidity * pool.sqrt_price >> 96
                price = square * dollar >> 192
            else:
                depth = (pool.liquidity << 96) // pool.sqrt_price
                price = (dollar << 192) // square
            # Depth: the dollar side at the current price, in 10^-36 dollars; equal depths go by address,
            # so that every process picks the same pool.
            rank = (depth * 10 ** (36 - min(places, 36)), pool.pool, price)
            if best is None or rank[0] > best[0] or (rank[0] == best[0] and rank[1] < best[1]):
                best = rank
        return None if best is None else best[2]
