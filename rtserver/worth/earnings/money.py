"""Raw amounts to US cents, and rates of them as percentages. Integers throughout; None where something is unknown."""

from collections.abc import Mapping

from ...domain.ids import Address
from ...domain.text import cents_text
from ...protocols.base import Prices

__all__ = ["cents_of", "percent_text", "usd_text", "worth_x128"]

_HALF = 1 << 127


def worth_x128(amounts: Mapping[Address, int], prices: Prices) -> int | None:
    """Return what raw amounts are worth, US cents × 2^128; None where one that isn't 0 has no price."""
    total = 0
    for token, amount in amounts.items():
        if amount:
            price = prices.get(token)
            if price is None:
                return None
            total += amount * price
    return total


def cents_of(amounts: Mapping[Address, int] | None, prices: Prices) -> int | None:
    """Return what raw amounts are worth in US cents, halves up; None where they or a price are unknown."""
    worth = None if amounts is None else worth_x128(amounts, prices)
    return None if worth is None else (worth + _HALF) >> 128


def usd_text(cents: int | None) -> str | None:
    """Return cents as dollars, None as it is."""
    return None if cents is None else cents_text(cents)


def percent_text(part: int | None, whole: int | None, places: int = 2) -> str | None:
    """Return a ratio as a percentage, halves away from zero: (31, 200) → "15.50%"; None where there is none."""
    if part is None or not whole or whole < 0:
        return None
    unit = 10**places
    scaled = (2 * abs(part) * 100 * unit + whole) // (2 * whole)
    sign = "-" if part < 0 and scaled else ""
    digits = f"{scaled // unit}.{scaled % unit:0{places}d}" if places else str(scaled)
    return f"{sign}{digits}%"
