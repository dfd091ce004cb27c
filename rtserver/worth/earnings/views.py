"""What clients see of a position's earnings: the fields that its details have beyond its state."""

from ...domain.diff import JsonObject
from ...protocols.base import Earnings, Life, Prices
from ...protocols.earning import WINDOWS_S
from .gains import earned_cents, earned_view, gains_view
from .money import percent_text, usd_text
from .rates import Rate, best_rate, pool_rate, rate_of, rate_view, window_name

__all__ = ["earnings_view", "glance_view"]


def earnings_view(earnings: Earnings | None, life: Life | None, prices: Prices) -> JsonObject:
    """Return `apr`, `aprs`, `poolApr`, `earnedAmountUSD`, `earned` and `pnl` of a position.

    Args:
        earnings: What its book says of it; None where it isn't fully read, and then every field is null.
        life: Its own events, None where they are unknown.
        prices: US cents × 2^128 per raw unit, of the same block.
    """
    if earnings is None:
        return dict.fromkeys(("apr", "aprs", "poolApr", "earnedAmountUSD", "earned", "pnl"))
    rates = [rate_of(window, earnings, prices) for window in earnings.windows]
    by_length = {rate.window.length_s: rate_view(rate) for rate in rates}
    return {
        "apr": _apr(rates),
        "aprs": {window_name(length_s): by_length.get(length_s) for length_s in WINDOWS_S},
        "poolApr": pool_rate(earnings, prices),
        "earnedAmountUSD": usd_text(earned_cents(earnings, prices)),
        "earned": earned_view(earnings, prices),
        "pnl": gains_view(earnings, life, prices),
    }


def glance_view(earnings: Earnings | None, prices: Prices) -> JsonObject:
    """Return `apr` and `earnedAmountUSD` alone, as a list of positions has them."""
    if earnings is None:
        return dict.fromkeys(("apr", "earnedAmountUSD"))
    rates = [rate_of(window, earnings, prices) for window in earnings.windows]
    return {"apr": _apr(rates), "earnedAmountUSD": usd_text(earned_cents(earnings, prices))}


def _apr(rates: list[Rate]) -> str | None:
    """Return the rate that stands for the position; one place is what a glance takes in, the windows have two."""
    best = best_rate(rates)
    total = None if best is None else best.total
    return None if total is None else percent_text(*total, places=1)
