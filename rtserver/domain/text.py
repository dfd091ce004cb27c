"""Exact numbers as text, for people and JSON. Never goes through a float."""

from typing import Final

from .ids import SqrtPriceX96

__all__ = ["CENTS", "cents_text", "decimal_text", "price_text"]

# Digits of a price that are shown: more than a double holds, fewer than anyone reads.
PRICE_DIGITS: Final = 18
# The part of a dollar as text, by cents: looking it up costs a third of formatting it.
CENTS: Final = tuple(f".{cents:02d}" for cents in range(100))


def cents_text(cents: int) -> str:
    """Return an amount of US cents as dollars with two decimals: 100050 → "1000.50"."""
    if cents < 0:
        return "-" + cents_text(-cents)
    whole, part = divmod(cents, 100)
    return f"{whole}{CENTS[part]}"


def decimal_text(digits: int, exponent: int) -> str:
    """Return digits × 10^exponent without an exponent and without trailing zeros: (1250, -3) → "1.25"."""
    if digits == 0:
        return "0"
    sign = "-" if digits < 0 else ""
    text = str(abs(digits))
    if exponent >= 0:
        return sign + text + "0" * exponent
    if len(text) <= -exponent:
        text = text.rjust(1 - exponent, "0")
    whole, part = text[:exponent], text[exponent:].rstrip("0")
    return sign + (f"{whole}.{part}" if part else whole)


def price_text(sqrt_price: SqrtPriceX96, decimals0: int, decimals1: int) -> str:
    """Return the price of one token0 in token1 as a decimal string of up to 18 digits, rounded down.

    Args:
        sqrt_price: sqrt(token1/token0) in raw units, Q64.96, positive.
        decimals0: Decimals of token0.
        decimals1: Decimals of token1.
    """
    shift = decimals0 - decimals1
    numerator, denominator = sqrt_price * sqrt_price, 1 << 192
    # bit_length*0.30103 is the number of decimal digits to within one; a wrong guess costs one digit.
    magnitude = ((sqrt_price.bit_length() - 96) * 2 * 30103) // 100_000
    exponent = magnitude - PRICE_DIGITS
    if exponent <= 0:
        digits = numerator * 10**-exponent // denominator
    else:
        digits = numerator // (denominator * 10**exponent)
    return decimal_text(digits, exponent + shift)
