"""What a position has gained: against what was put in, and against having kept the tokens.

Three questions with three answers, each with what it rests on.

- Impermanent loss: the tokens in the position and those withdrawn, against those deposited, all at the prices of now.
  It needs no price of the past.
- Fees and rewards over the life, at the prices of now.
- Net: what is in the position and what was paid out, against what was put in, each payment at the prices of its own
  block. It is null as long as one of these prices is unknown. Gas isn't known, so it is not in it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from ...domain.cents import cents_of
from ...domain.diff import JsonObject, JsonValue
from ...domain.ids import Address
from ...protocols.addresses import checksum
from ...protocols.base import Earnings, Life, LifeEvent, Prices
from .money import usd_text

__all__ = ["earned_cents", "earned_view", "gains_view"]

# Which prices each figure is at: those of each payment's own block, or those of now.
_BASIS: Final = {
    "deposits": "pricesThen",
    "withdrawals": "pricesThen",
    "collected": "pricesThen",
    "hodlUSD": "pricesNow",
    "impermanentLossUSD": "pricesNow",
    "netUSD": "pricesThen",
}


def earned_fees(earnings: Earnings) -> dict[Address, int] | None:
    """Return all fees over a position's life, None while its past is unknown."""
    sample = earnings.sample
    if sample.earned0 is None or sample.earned1 is None:
        return None
    # One and the same range is shared: what another NFT took may be missing by a unit before anything was earned.
    return {earnings.token0: max(sample.earned0, 0), earnings.token1: max(sample.earned1, 0)}


def earned_cents(earnings: Earnings, prices: Prices) -> int | None:
    """Return fees and rewards over a position's life in US cents at the prices of now, None where one is unknown."""
    fees, rewards = cents_of(earned_fees(earnings), prices), cents_of(earnings.sample.rewards, prices)
    return None if fees is None or rewards is None else fees + rewards


def earned_view(earnings: Earnings, prices: Prices) -> JsonObject:
    """Return what was earned over the life, amount by amount."""
    fees, rewards = earned_fees(earnings), earnings.sample.rewards
    return {
        "fees0": None if fees is None else str(fees[earnings.token0]),
        "fees1": None if fees is None else str(fees[earnings.token1]),
        "feesUSD": usd_text(cents_of(fees, prices)),
        "rewards": None
        if rewards is None
        else [
            {"token": checksum(token), "amount": str(amount), "usd": usd_text(cents_of({token: amount}, prices))}
            for token, amount in sorted(rewards.items())
        ],
        "rewardsUSD": usd_text(cents_of(rewards, prices)),
        "basis": "pricesNow",
    }


def gains_view(earnings: Earnings, life: Life | None, prices: Prices) -> JsonObject | None:
    """Return a position's gains; None while its past is unknown."""
    if life is None:
        return None
    sample, pair = earnings.sample, (earnings.token0, earnings.token1)
    kept = {
        pair[0]: life.deposited0 - life.withdrawn0,
        pair[1]: life.deposited1 - life.withdrawn1,
    }
    value = cents_of({pair[0]: sample.amount0, pair[1]: sample.amount1}, prices)
    hold = cents_of(kept, prices)
    flows = {
        kind: _then([event for event in life.events if event.kind == kind], is_whole=life.is_whole)
        for kind in ("deposit", "withdrawal", "collect")
    }
    due = cents_of({pair[0]: earnings.collectable0, pair[1]: earnings.collectable1}, prices)
    rewards = cents_of(sample.rewards, prices)
    includes: list[JsonValue] = ["principal", "fees"]
    if rewards is not None:
        includes.append("rewards")
    net: int | None = None
    if value is not None and due is not None and flows["deposit"] is not None and flows["collect"] is not None:
        net = value + due + flows["collect"] + (rewards or 0) - flows["deposit"]
    return {
        "deposits": _flow_view(life.deposited0, life.deposited1, flows["deposit"]),
        "withdrawals": _flow_view(life.withdrawn0, life.withdrawn1, flows["withdrawal"]),
        "collected": _flow_view(life.collected0, life.collected1, flows["collect"]),
        "hodlUSD": usd_text(hold),
        "impermanentLossUSD": None if value is None or hold is None else usd_text(value - hold),
        "netUSD": usd_text(net),
        "netIncludes": includes,
        "basis": dict(_BASIS),
        "priceSources": _sources(life.events),
        "isWhole": life.is_whole,
    }


def _flow_view(amount0: int, amount1: int, cents: int | None) -> JsonObject:
    return {"amount0": str(amount0), "amount1": str(amount1), "usd": usd_text(cents)}


def _then(events: Iterable[LifeEvent], *, is_whole: bool) -> int | None:
    """Return what events moved, each at the prices of its own block, in US cents; None where one is unknown."""
    total = 0
    for event in events:
        for amount, cents in ((event.amount0, event.cents0), (event.amount1, event.cents1)):
            if amount and cents is None:
                return None
            total += amount * (cents or 0)
    return (total + (1 << 127)) >> 128 if is_whole else None


def _sources(events: Iterable[LifeEvent]) -> JsonObject:
    """Return how many events are priced by what: by this server then, by pools of that block, or by nothing."""
    return dict(Counter(event.basis or "unknown" for event in events))
