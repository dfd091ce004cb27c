"""Prices as exact decimals: what is shown is what is valued with, and nonsense is no price."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.worth.dollars import ONE_DOLLAR, SCALE, Dollars, dollars, dollars_of, parse_dollars


@pytest.mark.parametrize(
    ("digits", "exponent", "text"),
    [
        (297205123456, -8, "2972.05123456"),
        (100000000, -8, "1"),
        (1, 0, "1"),
        (812, -8, "0.00000812"),
        (10**30, -30, "1"),
        (12345678901234567899, -19, "1.23456789012345678"),
        (99999999999999999999, -19, "9.99999999999999999"),
        (1, -29, "0." + "0" * 28 + "1"),
        (999, 12, "999000000000000"),
    ],
)
def test_a_price_is_its_digits_rounded_down(digits: int, exponent: int, text: str) -> None:
    price = dollars(digits, exponent)
    assert price is not None
    assert price.text == text


@pytest.mark.parametrize(
    ("digits", "exponent"), [(0, 0), (-1, 0), (-(2**255), -8), (1, 15), (10**15, 0), (1, -31), (2**255, 0), (1, 10**6)]
)
def test_what_nothing_ever_cost_is_no_price(digits: int, exponent: int) -> None:
    assert dollars(digits, exponent) is None


def test_equal_prices_are_equal_however_they_are_spelled() -> None:
    assert dollars(100, -2) == dollars(10**18, -18) == ONE_DOLLAR


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("67187.3358936566"), "67187.3358936566"),
        (Decimal("8.12e-06"), "0.00000812"),
        (3, "3"),
        (Decimal("1.00"), "1"),
        (0, None),
        (Decimal(0), None),
        (-3, None),
        (Decimal("-0.5"), None),
        (True, None),
        ("3", None),
        (3.0, None),
        (None, None),
        (Decimal("NaN"), None),
        (Decimal("Infinity"), None),
        (Decimal("1e999999"), None),
        (Decimal("1e-999999"), None),
        (Decimal("1." + "1" * 5000), None),
        (10**4000, None),
    ],
)
def test_json_numbers(value: object, text: str | None) -> None:
    price = parse_dollars(value)
    assert (None if price is None else price.text) == text


@given(st.integers(1, 10**30), st.integers(-40, 10), st.integers(0, 77))
def test_a_unit_costs_its_share_of_a_token(digits: int, exponent: int, decimals: int) -> None:
    price = dollars(digits, exponent)
    if price is None:
        return
    exact = Fraction(digits) * Fraction(10) ** exponent
    shown = Fraction(price.digits) * Fraction(10) ** price.exponent
    assert shown <= exact < shown * (1 + Fraction(1, 10**17))
    assert price.scaled == shown * 10**SCALE
    assert dollars_of(price.scaled) == price
    assert price.cents_x128(decimals) == shown * (100 << 128) // 10**decimals


@pytest.mark.parametrize(
    ("one", "other", "limit_bps", "differs"),
    [("100", "102", 200, False), ("100", "102.01", 200, True), ("100", "98", 200, False), ("100", "97.9", 200, True)],
)
def test_distance(one: str, other: str, limit_bps: int, differs: bool) -> None:
    first, second = parse_dollars(Decimal(one)), parse_dollars(Decimal(other))
    assert isinstance(first, Dollars)
    assert isinstance(second, Dollars)
    assert first.differs(second, limit_bps) is differs
