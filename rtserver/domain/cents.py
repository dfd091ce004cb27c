"""Raw amounts to US cents: the one sum behind every value that is told. Integers throughout, None where unknown.

Nothing of a token is worth nothing, whatever its price: an amount of 0 needs none. Were it unknown instead, a position
that holds dollars alone, or an incentive that has paid nothing yet, would hide what is known beside it. Every other
amount without a price makes the whole sum unknown: never 0 for what nobody knows.
"""

from collections.abc import Mapping
from typing import Final

from .ids import Address

__all__ = ["cents_of", "pair_cents", "worth_x128"]

_HALF: Final = 1 << 127


def worth_x128(amounts: Mapping[Address, int], prices: Mapping[Address, int]) -> int | None:
    """Return what raw amounts are worth, US cents × 2^128; None where one that isn't 0 has no price.

    Args:
        amounts: By token, in smallest units; may be negative.
        prices: US cents × 2^128 per smallest unit.
    """
    total = 0
    for token, amount in amounts.items():
        if amount:
            price = prices.get(token)
            if price is None:
                return None
            total += amount * price
    return total


def cents_of(amounts: Mapping[Address, int] | None, prices: Mapping[Address, int]) -> int | None:
    """Return what raw amounts are worth in US cents, halves up; None where they or a price are unknown."""
    worth = None if amounts is None else worth_x128(amounts, prices)
    return None if worth is None else (worth + _HALF) >> 128


def pair_cents(amount0: int, amount1: int, cents0: int | None, cents1: int | None) -> int | None:
    """Return the same of a pair's two amounts; `cents0/1` are their prices."""
    if (amount0 and cents0 is None) or (amount1 and cents1 is None):
        return None
    return (amount0 * (cents0 or 0) + amount1 * (cents1 or 0) + _HALF) >> 128
