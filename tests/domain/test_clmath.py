"""The arithmetic against the formulas themselves, on exact fractions, and against known values."""

from decimal import Decimal, localcontext
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.clmath import tick_math
from rtserver.domain.clmath.amounts import amounts_at
from rtserver.domain.clmath.fees import growth_inside, owed
from rtserver.domain.clmath.tick_math import MAX_TICK, MIN_TICK, sqrt_ratio_at_tick
from rtserver.domain.errors import TickOutOfRange
from rtserver.domain.ids import Liquidity, RawAmount, SqrtPriceX96, Tick

TICKS = st.integers(MIN_TICK, MAX_TICK).map(Tick)
RANGES = st.tuples(TICKS, TICKS).filter(lambda pair: pair[0] != pair[1]).map(sorted).map(tuple)
WORDS = st.integers(0, 2**256 - 1)
EDGES = st.one_of(WORDS, st.sampled_from([0, 1, 2**128, 2**255, 2**256 - 1]))
LIQUIDITY = st.integers(0, 2**128 - 1).map(Liquidity)
Q96 = 2**96


def test_the_bounds_are_the_contract_s() -> None:
    assert sqrt_ratio_at_tick(Tick(MIN_TICK)) == 4295128739
    assert sqrt_ratio_at_tick(Tick(MAX_TICK)) == 1461446703485210103287273052203988822378723970342
    assert sqrt_ratio_at_tick(Tick(0)) == Q96


@pytest.mark.parametrize(
    ("tick", "ratio"),
    # Source: Uniswap/v3-core test/__snapshots__/TickMath.spec.ts.snap, getSqrtRatioAtTick.
    [
        (50, 79426470787362580746886972461),
        (100, 79625275426524748796330556128),
        (250, 80224679980005306637834519095),
        (500, 81233731461783161732293370115),
        (1000, 83290069058676223003182343270),
        (-50, 79030349367926598376800521322),
        (-100, 78833030112140176575862854579),
        (-1000, 75364347830767020784054125655),
    ],
)
def test_known_ratios(tick: int, ratio: int) -> None:
    assert sqrt_ratio_at_tick(Tick(tick)) == ratio


def test_the_factors_are_powers_of_the_base() -> None:
    with localcontext() as context:
        context.prec = 120
        base = Decimal("1.0001").sqrt()
        for bit, factor in enumerate(tick_math._FACTORS):
            exact = Decimal(2**128) / base ** (2**bit)
            # The contract's constants are off by a few units in the last place at most.
            assert abs(Decimal(factor) - exact) < max(exact / 2**100, 16), bit


@given(TICKS)
def test_a_ratio_is_the_power_within_its_rounding(tick: Tick) -> None:
    with localcontext() as context:
        context.prec = 80
        exact = Decimal("1.0001") ** (Decimal(tick) / 2) * Q96
        # Twenty factors, each rounded at 128 bits (64 significant ones at the far end), then up to a whole unit.
        assert abs(Decimal(sqrt_ratio_at_tick(tick)) - exact) <= exact * Decimal(2) ** -60 + 1


@given(st.integers(MIN_TICK, MAX_TICK - 1))
def test_ratios_rise_with_ticks(tick: int) -> None:
    assert sqrt_ratio_at_tick(Tick(tick)) < sqrt_ratio_at_tick(Tick(tick + 1))


@pytest.mark.parametrize("tick", [MIN_TICK - 1, MAX_TICK + 1, 1 << 23])
def test_no_tick_outside(tick: int) -> None:
    with pytest.raises(TickOutOfRange, match=str(tick)):
        sqrt_ratio_at_tick(Tick(tick))


@given(RANGES, st.integers(4295128739, 1461446703485210103287273052203988822378723970342), LIQUIDITY)
def test_amounts_are_the_formulas_rounded_down(ticks: tuple[Tick, Tick], price: int, liquidity: Liquidity) -> None:
    low, high = map(sqrt_ratio_at_tick, ticks)
    amount0, amount1 = amounts_at(SqrtPriceX96(price), low, high, liquidity)
    held = min(max(price, low), high)
    # Source: domain.md, Principal: two divisions, each rounded down.
    assert amount0 == floor(Fraction(floor(Fraction((liquidity << 96) * (high - held), high)), held))
    assert amount1 == floor(Fraction(liquidity * (held - low), Q96))
    exact0 = Fraction(liquidity * Q96) * (Fraction(1, held) - Fraction(1, high))
    assert exact0 - 2 < amount0 <= exact0


@given(RANGES, LIQUIDITY)
def test_a_range_holds_one_token_outside(ticks: tuple[Tick, Tick], liquidity: Liquidity) -> None:
    low, high = map(sqrt_ratio_at_tick, ticks)
    assert amounts_at(low, low, high, liquidity)[1] == 0
    assert amounts_at(high, low, high, liquidity)[0] == 0
    below = amounts_at(SqrtPriceX96(low - 1), low, high, liquidity)
    assert below == amounts_at(low, low, high, liquidity)
    above = amounts_at(SqrtPriceX96(high + 1), low, high, liquidity)
    assert above == amounts_at(high, low, high, liquidity)


@given(RANGES, TICKS, EDGES, EDGES, EDGES)
def test_growth_inside_is_the_whole_less_both_sides(
    ticks: tuple[Tick, Tick], tick: Tick, growth: int, out_lower: int, out_upper: int
) -> None:
    low, high = ticks
    below = out_lower if tick >= low else (growth - out_lower) % 2**256
    above = out_upper if tick < high else (growth - out_upper) % 2**256
    inside = growth_inside(tick, low, high, growth, out_lower, out_upper)
    assert inside == (growth - below - above) % 2**256
    assert 0 <= inside < 2**256


@given(EDGES, EDGES, LIQUIDITY, st.integers(0, 2**128 - 1))
def test_owed_wraps_as_the_contract_does(inside: int, last: int, liquidity: Liquidity, stored: int) -> None:
    result = owed(inside, last, liquidity, RawAmount(stored))
    assert result == (((inside - last) % 2**256) * liquidity // 2**128 + stored) % 2**128


def test_growth_that_wrapped_still_counts() -> None:
    # Global growth passed 2^256 between the pokes: the difference is 15, not minus a lot.
    assert owed(10, 2**256 - 5, Liquidity(2**128 - 1), RawAmount(0)) == 14
    assert owed(10, 2**256 - 5, Liquidity(1 << 127), RawAmount(3)) == 10
