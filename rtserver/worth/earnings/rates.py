"""Yearly rates of a position: what its fees over a window come to, and what staking pays at the present rate.

Fees are the position's own, never its pool's: two positions of one pool may differ fifty times. Beside them stands,
under its own name, what a position over the whole range would have earned in the same pool.
"""

from dataclasses import dataclass
from typing import Final

from ...domain.cents import worth_x128
from ...domain.clmath.rewards import YEAR_S
from ...domain.diff import JsonObject
from ...protocols.base import Earnings, PoolWindow, Prices, Window
from .money import percent_text, usd_text

__all__ = ["MIN_COVERED", "Rate", "best_rate", "pool_rate", "rate_of", "rate_view", "window_name"]

# The part of a window that has to be covered before it tells a rate. Over less, a single trade would be stretched to a
# year, and the figure would stand under the name of a window that it is not of: 6 minutes, 2.4 hours, 16.8 hours.
MIN_COVERED: Final = 10
_HALF: Final = 1 << 127


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A position's rate over a window, as ratios of cents × 2^128: (part, whole) each, None where unknown."""

    window: Window
    fees_x128: int | None
    fees: tuple[int, int] | None
    rewards: tuple[int, int] | None

    @property
    def total(self) -> tuple[int, int] | None:
        """Return fees and rewards together; None where either is unknown."""
        if self.fees is None or self.rewards is None:
            return None
        return self.fees[0] * self.rewards[1] + self.rewards[0] * self.fees[1], self.fees[1] * self.rewards[1]


def rate_of(window: Window, earnings: Earnings, prices: Prices) -> Rate:
    """Return a position's rate over a window.

    feeAPR = fees at the price now / mean value / seconds covered × 31,536,000; simple interest, nothing is compounded.
    """
    fees_x128 = worth_x128({earnings.token0: window.fees0, earnings.token1: window.fees1}, prices)
    fees = None
    if fees_x128 is not None and window.mean_cents and window.covered_s * MIN_COVERED >= window.length_s:
        fees = fees_x128 * YEAR_S, (window.mean_cents << 128) * window.covered_s
    rewards = None
    value = earnings.sample.value_cents
    if earnings.reward_rates is not None:
        yearly = worth_x128(earnings.reward_rates, prices)
        if yearly == 0:
            rewards = 0, 1
        elif yearly is not None and value:
            rewards = yearly, value << 128
    return Rate(window=window, fees_x128=fees_x128, fees=fees, rewards=rewards)


def rate_view(rate: Rate) -> JsonObject:
    """Return a rate as clients see it."""
    total = rate.total
    return {
        "windowSeconds": rate.window.covered_s,
        "feesUSD": None if rate.fees_x128 is None else usd_text((rate.fees_x128 + _HALF) >> 128),
        "feeAPR": None if rate.fees is None else percent_text(*rate.fees),
        "rewardAPR": None if rate.rewards is None else percent_text(*rate.rewards),
        "APR": None if total is None else percent_text(*total),
    }


def best_rate(rates: list[Rate]) -> Rate | None:
    """Return the rate that stands for the position: that of a day, else the longest that is known."""
    known = [rate for rate in rates if rate.total is not None]
    a_day = next((rate for rate in known if rate.window.length_s == 86_400), None)
    return a_day or max(known, key=lambda rate: rate.window.covered_s, default=None)


def pool_rate(earnings: Earnings, prices: Prices) -> JsonObject | None:
    """Return what liquidity over the whole range of the pool earned: of a day, else the longest window known."""
    known = [window for window in earnings.pool_windows if window.covered_s * MIN_COVERED >= window.length_s]
    a_day = next((window for window in known if window.length_s == 86_400), None)
    window = a_day or max(known, key=lambda window: window.covered_s, default=None)
    cents0, cents1 = prices.get(earnings.token0), prices.get(earnings.token1)
    price = earnings.sample.sqrt_price_x96
    if window is None or cents0 is None or cents1 is None or not price:
        return None
    return {
        "basis": "fullRange",
        "windowSeconds": window.covered_s,
        "APR": percent_text(
            _growth(window, cents0, cents1) * YEAR_S, _unit_value(price, cents0, cents1) * window.covered_s
        ),
    }


def _growth(window: PoolWindow, cents0: int, cents1: int) -> int:
    """Return what one unit of liquidity earned, cents × 2^256."""
    return window.growth0 * cents0 + window.growth1 * cents1


def _unit_value(sqrt_price: int, cents0: int, cents1: int) -> int:
    """Return what one unit of liquidity over the whole range is worth, cents × 2^256."""
    return ((cents0 << 224) // sqrt_price) + (cents1 * sqrt_price << 32)


def window_name(length_s: int) -> str:
    """Return what a window is called: 1h, 24h, 7d."""
    return f"{length_s // 86_400}d" if length_s > 86_400 else f"{length_s // 3_600}h"
