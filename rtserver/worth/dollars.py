"""A price in US dollars as an exact decimal, and what can be done with it. Integers throughout, never a float.

A price holds at most 18 significant digits: what is shown is what positions are valued with, so that a reader
who multiplies gets the server's own figures.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from ..domain.text import decimal_text

__all__ = ["ONE_DOLLAR", "SCALE", "Dollars", "dollars", "dollars_of", "parse_dollars"]

# More than a double holds; a price for any real token needs fewer.
_DIGITS: Final = 18
_TOO_MANY: Final = 10**_DIGITS
# Dearer or cheaper than anything that was ever traded: such a number is a mistake or an attack, and its digits
# alone would cost time. All the world's money is some 10^14 dollars.
_MAX_EXPONENT: Final = 15
_MIN_EXPONENT: Final = -30
# Prices that are still being computed are integers times 10^-48: they hold 18 digits of the cheapest.
SCALE: Final = _DIGITS - _MIN_EXPONENT
_CENTS_X128: Final = 100 << 128


@dataclass(frozen=True, slots=True)
class Dollars:
    """digits × 10^exponent US dollars for one whole token; made by `dollars` only, so equal prices are equal."""

    digits: int
    exponent: int

    @property
    def text(self) -> str:
        """Return the price as a decimal without an exponent: "2972.05"."""
        return decimal_text(self.digits, self.exponent)

    @property
    def scaled(self) -> int:
        """Return the price times 10^48, exactly."""
        unit: int = 10 ** (self.exponent + SCALE)
        return self.digits * unit

    def cents_x128(self, decimals: int) -> int:
        """Return US cents per smallest unit times 2^128, rounded down, for a token with so many decimals."""
        unit: int = 10 ** (SCALE + decimals)
        return self.scaled * _CENTS_X128 // unit

    def differs(self, other: "Dollars", limit_bps: int) -> bool:
        """Return whether another price is further away than a limit in hundredths of a percent of this one."""
        mine = self.scaled
        return abs(mine - other.scaled) * 10_000 > limit_bps * mine


def dollars(digits: int, exponent: int) -> Dollars | None:
    """Return digits × 10^exponent rounded down to 18 digits, None where that is no plausible price.

    Args:
        digits: Any integer of the size that the caller has bounded; not positive is no price.
        exponent: Power of ten.
    """
    if digits <= 0:
        return None
    length = len(str(digits))
    if not _MIN_EXPONENT < exponent + length <= _MAX_EXPONENT:
        return None
    if length > _DIGITS:
        digits //= 10 ** (length - _DIGITS)
        exponent += length - _DIGITS
    while digits % 10 == 0:
        digits //= 10
        exponent += 1
    return Dollars(digits, exponent)


def dollars_of(scaled: int) -> Dollars | None:
    """Return a price from an integer times 10^-48, rounded down to 18 digits."""
    return dollars(scaled, -SCALE)


def parse_dollars(value: object) -> Dollars | None:
    """Return a price from a JSON number read as int or Decimal, None where it is no plausible price."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    if isinstance(value, int):
        return dollars(value, 0) if value.bit_length() < 256 else None
    sign, digits, exponent = value.as_tuple()
    if sign or not isinstance(exponent, int) or len(digits) > 100 or abs(exponent) > 1000:
        return None
    return dollars(int("".join(map(str, digits))), exponent)


ONE_DOLLAR: Final = Dollars(1, 0)
