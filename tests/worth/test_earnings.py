"""Rates and gains as clients see them: against fractions, and null wherever something is unknown."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from rtserver.domain.ids import Address, BlockHash, TokenId
from rtserver.protocols.earning import Earnings, Life, LifeEvent, PoolWindow, Sample, Window
from rtserver.worth.earnings import earnings_view, glance_view
from rtserver.worth.earnings.money import percent_text

WETH, USDC, GOV = (Address(f"0x{n:040x}") for n in (1, 2, 3))
ETHER, DOLLAR, CENT_X128 = 10**18, 10**6, 1 << 128
# 3,000 dollars an ether of 18 decimals, a dollar of 6: cents × 2^128 per raw unit.
PRICES = {WETH: 300_000 * CENT_X128 // ETHER, USDC: 100 * CENT_X128 // DOLLAR}
DAY = Window(length_s=86_400, covered_s=90_000, fees0=ETHER // 1000, fees1=2 * DOLLAR, mean_cents=1_000_000)
HOUR = replace(DAY, length_s=3_600, covered_s=3_600, fees0=0, fees1=DOLLAR)


def sample(**changes: Any) -> Sample:
    values: dict[str, Any] = {
        "token_id": TokenId(1), "liquidity": 10**15, "inside0": 0, "inside1": 0, "amount0": ETHER,
        "amount1": 3_000 * DOLLAR, "fees0": 0, "fees1": DOLLAR, "earned0": ETHER // 10, "earned1": 5 * DOLLAR,
        "sqrt_price_x96": int((3000 * 10**-12) ** 0.5 * 2**96), "tick": 0, "is_active": True,
        "value_cents": 600_000, "fees_cents": 100, "rewards": {},
    }  # fmt: skip
    return Sample(**{**values, **changes})


def earnings(**changes: Any) -> Earnings:
    values: dict[str, Any] = {
        "sample": sample(), "token0": WETH, "token1": USDC, "collectable0": 0, "collectable1": DOLLAR,
        "owed_principal0": 0, "owed_principal1": 0, "windows": (HOUR, DAY), "pool_windows": (), "reward_rates": {},
    }  # fmt: skip
    return Earnings(**{**values, **changes})


def event(kind: Any, amount0: int, amount1: int, ether_usd: int | None = 2_000) -> LifeEvent:
    cents0 = None if ether_usd is None else ether_usd * 100 * CENT_X128 // ETHER
    return LifeEvent(
        kind=kind, block_number=1, block_hash=BlockHash("0x1"), timestamp=1, amount0=amount0, amount1=amount1,
        fees0=0, fees1=0, cents0=cents0, cents1=PRICES[USDC], basis=None if ether_usd is None else "own",
    )  # fmt: skip


LIFE = Life(
    deposited0=2 * ETHER, deposited1=4_000 * DOLLAR, withdrawn0=ETHER, withdrawn1=500 * DOLLAR,
    collected0=ETHER, collected1=510 * DOLLAR, is_whole=True,
    events=(event("deposit", 2 * ETHER, 4_000 * DOLLAR), event("withdrawal", ETHER, 500 * DOLLAR, 2_500),
            event("collect", ETHER, 510 * DOLLAR, 2_500)),
)  # fmt: skip


def test_fee_rates_are_simple_interest_on_the_mean_value() -> None:
    view: Any = earnings_view(earnings(), LIFE, PRICES)
    day = view["aprs"]["24h"]
    cents = Fraction(300_000, 1000) + 200
    expected = cents / 1_000_000 / 90_000 * 31_536_000 * 100
    assert day["feeAPR"] == f"{float(expected):.2f}%" == "17.52%"
    assert (day["windowSeconds"], day["feesUSD"], day["rewardAPR"], day["APR"]) == (90_000, "5.00", "0.00%", "17.52%")
    assert view["aprs"]["7d"] is None
    assert view["apr"] == "17.5%"
    assert glance_view(earnings(), PRICES) == {"apr": "17.5%", "earnedAmountUSD": view["earnedAmountUSD"]}


def test_a_rate_that_rests_on_too_little_is_null() -> None:
    short = replace(DAY, covered_s=8_639)
    view: Any = earnings_view(earnings(windows=(HOUR, short)), LIFE, PRICES)
    assert view["aprs"]["24h"]["feeAPR"] is None
    assert view["aprs"]["24h"]["feesUSD"] == "5.00"
    # The hour is then the longest that is known.
    assert view["apr"] == f"{float(Fraction(100, 1_000_000) / 3_600 * 31_536_000 * 100):.1f}%"
    enough: Any = earnings_view(earnings(windows=(replace(DAY, covered_s=8_640),)), LIFE, PRICES)
    assert enough["aprs"]["24h"]["feeAPR"] is not None


@pytest.mark.parametrize("mean", [None, 0])
def test_without_a_value_there_is_no_rate(mean: int | None) -> None:
    view: Any = earnings_view(earnings(windows=(replace(DAY, mean_cents=mean),)), LIFE, PRICES)
    assert (view["aprs"]["24h"]["feeAPR"], view["aprs"]["24h"]["APR"], view["apr"]) == (None, None, None)


def test_reward_rates_are_apart_and_together() -> None:
    prices = {**PRICES, GOV: 50 * CENT_X128 // ETHER}
    paid = earnings(reward_rates={GOV: 1_200 * ETHER})
    view: Any = earnings_view(paid, LIFE, prices)
    day = view["aprs"]["24h"]
    assert (day["feeAPR"], day["rewardAPR"], day["APR"]) == ("17.52%", "10.00%", "27.52%")
    # Out of range it earns nothing, whatever it is worth.
    idle: Any = earnings_view(earnings(reward_rates={GOV: 0}), LIFE, PRICES)
    assert idle["aprs"]["24h"]["rewardAPR"] == "0.00%"
    unpriced: Any = earnings_view(paid, LIFE, PRICES)
    day = unpriced["aprs"]["24h"]
    assert (day["feeAPR"], day["rewardAPR"], day["APR"]) == ("17.52%", None, None)
    assert unpriced["apr"] is None
    unknown: Any = earnings_view(earnings(reward_rates=None), LIFE, PRICES)
    assert unknown["aprs"]["24h"]["rewardAPR"] is None


def test_the_pools_own_rate_is_that_of_the_whole_range_and_says_so() -> None:
    pools = (PoolWindow(length_s=86_400, covered_s=86_400, growth0=0, growth1=1 << 100),)
    view: Any = earnings_view(earnings(pool_windows=pools), LIFE, PRICES)
    price = Fraction(sample().sqrt_price_x96, 1 << 96)
    value = Fraction(PRICES[WETH]) / price + PRICES[USDC] * price
    expected = Fraction(1 << 100, 1 << 128) * PRICES[USDC] / value * 365 * 100
    assert view["poolApr"] == {"basis": "fullRange", "windowSeconds": 86_400, "APR": f"{float(expected):.2f}%"}
    assert earnings_view(earnings(), LIFE, PRICES)["poolApr"] is None


def test_what_was_earned_over_life_counts_no_principal() -> None:
    prices = {**PRICES, GOV: 50 * CENT_X128 // ETHER}
    view: Any = earnings_view(earnings(sample=sample(rewards={GOV: 4 * ETHER})), LIFE, prices)
    assert (view["earned"]["fees0"], view["earned"]["feesUSD"]) == (str(ETHER // 10), "305.00")
    assert view["earned"]["rewardsUSD"] == "2.00"
    assert view["earnedAmountUSD"] == "307.00"
    for unknown in ({"earned0": None}, {"rewards": None}, {"rewards": {GOV: 1}}):
        view = earnings_view(earnings(sample=sample(**unknown)), LIFE, PRICES)
        assert view["earnedAmountUSD"] is None


def test_gains_are_against_what_was_put_in_and_against_keeping_it() -> None:
    view: Any = earnings_view(earnings(), LIFE, PRICES)
    pnl = view["pnl"]
    assert (pnl["deposits"]["usd"], pnl["withdrawals"]["usd"], pnl["collected"]["usd"]) == (
        "8000.00", "3000.00", "3010.00",
    )  # fmt: skip
    # Kept would be 1 ETH and 3,500 USDC; the position holds 1 ETH and 3,000.
    assert (pnl["hodlUSD"], pnl["impermanentLossUSD"]) == ("6500.00", "-500.00")
    # 6,000 in it, 1 due, 3,010 paid then, 8,000 put in then.
    assert (pnl["netUSD"], pnl["netIncludes"]) == ("1011.00", ["principal", "fees", "rewards"])
    assert pnl["priceSources"] == {"own": 3}
    assert pnl["basis"].keys() <= pnl.keys()


def test_gains_are_null_rather_than_wrong() -> None:
    unpriced = replace(LIFE, events=(*LIFE.events[:2], event("collect", ETHER, 510 * DOLLAR, None)))
    view: Any = earnings_view(earnings(), unpriced, PRICES)
    assert (view["pnl"]["collected"]["usd"], view["pnl"]["netUSD"]) == (None, None)
    assert (view["pnl"]["collected"]["amount0"], view["pnl"]["deposits"]["usd"]) == (str(ETHER), "8000.00")
    assert view["pnl"]["priceSources"] == {"own": 2, "unknown": 1}
    shortened: Any = earnings_view(earnings(), replace(LIFE, is_whole=False), PRICES)
    assert (shortened["pnl"]["deposits"]["usd"], shortened["pnl"]["netUSD"]) == (None, None)
    assert shortened["pnl"]["impermanentLossUSD"] == "-500.00"
    assert earnings_view(earnings(), None, PRICES)["pnl"] is None
    nothing: Any = earnings_view(earnings(), LIFE, {})
    assert (nothing["pnl"]["netUSD"], nothing["pnl"]["impermanentLossUSD"], nothing["apr"]) == (None, None, None)
    unrewarded: Any = earnings_view(earnings(sample=sample(rewards=None)), LIFE, PRICES)
    assert unrewarded["pnl"]["netIncludes"] == ["principal", "fees"]
    assert set(earnings_view(None, None, PRICES).values()) == {None}


def test_percentages() -> None:
    assert [percent_text(part, 200) for part in (31, 0, -31)] == ["15.50%", "0.00%", "-15.50%"]
    assert percent_text(1, 3, 1) == "33.3%"
    assert percent_text(1, 0) is None
    assert percent_text(10**30, 1) == f"{10**32}.00%"
