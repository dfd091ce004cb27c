"""A token's price from its pools: the median of their spot prices, weighted by the dollars that stand behind each.

Pools under a minimum depth have no vote: moving one costs less than anyone would notice. Depth is the quote
side at the current price, L·√P: what it takes to move the price while liquidity stays in range. It is no
promise about the next tick, which is why more than half of all depth has to be moved to move the median.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..domain.ids import Address
from ..protocols.base import QuotePool
from .dollars import Dollars, dollars_of

__all__ = ["QuoteToken", "median_price"]


@dataclass(frozen=True, slots=True)
class QuoteToken:
    """What a pool's other token is worth, for pricing this one against it."""

    price: Dollars
    decimals: int
    cents_x128: int


def median_price(
    token: Address,
    decimals: int,
    pools: Iterable[QuotePool],
    quote_token: Callable[[Address], QuoteToken | None],
    *,
    min_depth_cents: int,
    agree_bps: int,
) -> tuple[Dollars, int] | None:
    """Return (dollars for a whole token, confidence in hundredths), None where no pool is deep enough.

    Args:
        token: The token to price.
        decimals: Its decimals.
        pools: Its pools; those against a token without a price have no vote.
        quote_token: What the other token of a pool is worth, None where that is unknown.
        min_depth_cents: Depth under which a pool has no vote, in US cents of the quote side.
        agree_bps: How near, in hundredths of a percent, pools agree: confidence is the share of all depth
            that stands this near the median.
    """
    votes: list[tuple[int, Address, int]] = []
    for pool in pools:
        if not pool.liquidity or not pool.sqrt_price:
            continue
        other = quote_token(pool.token1 if pool.token0 == token else pool.token0)
        if other is None:
            continue
        square = pool.sqrt_price * pool.sqrt_price
        unit = other.price.scaled * 10**decimals
        per = 10**other.decimals
        if pool.token0 == token:
            depth = pool.liquidity * pool.sqrt_price >> 96
            scaled = unit * square // (per << 192)
        else:
            depth = (pool.liquidity << 96) // pool.sqrt_price
            scaled = (unit << 192) // (per * square)
        cents = depth * other.cents_x128 >> 128
        if cents >= min_depth_cents and scaled:
            # Equal prices go by address, so that every process counts in one order.
            votes.append((scaled, pool.pool, max(cents, 1)))
    if not votes:
        return None
    votes.sort()
    total = sum(weight for _, _, weight in votes)
    counted, middle = 0, 0
    for scaled, _, weight in votes:
        counted += weight
        if 2 * counted >= total:
            middle = scaled
            break
    price = dollars_of(middle)
    if price is None:
        return None
    near = sum(weight for scaled, _, weight in votes if abs(scaled - middle) * 10_000 <= agree_bps * middle)
    return price, 100 * near // total
