"""Numbers as text against decimal arithmetic."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.ids import SqrtPriceX96
from rtserver.domain.text import PRICE_DIGITS, cents_text, decimal_text, price_text


@pytest.mark.parametrize(
    ("digits", "exponent", "text"),
    [(0, 5, "0"), (0, -5, "0"), (1250, -3, "1.25"), (-1250, -3, "-1.25"), (1, -6, "0.000001"), (7, 3, "7000"),
     (1000, -3, "1"), (5, 0, "5"), (-5, -1, "-0.5")],
)  # fmt: skip
def test_examples(digits: int, exponent: int, text: str) -> None:
    assert decimal_text(digits, exponent) == text


@given(st.integers(-(10**40), 10**40), st.integers(-90, 90))
def test_decimal_text_is_exact_and_plain(digits: int, exponent: int) -> None:
    text = decimal_text(digits, exponent)
    with localcontext() as context:
        context.prec = 200
        assert Decimal(text) == Decimal(digits).scaleb(exponent)
    assert "e" not in text.lower()
    assert not ("." in text and text.endswith(("0", ".")))
    assert not text.lstrip("-").startswith(("00", "."))
    assert text != "-0"


@given(st.integers(-(10**30), 10**30))
def test_cents_have_two_places(cents: int) -> None:
    text = cents_text(cents)
    with localcontext() as context:
        context.prec = 60
        assert Decimal(text) * 100 == cents
    assert text[-3] == "."
    assert text.lstrip("-").lstrip("0") != ".00" or cents == 0 or abs(cents) < 100


def test_small_cents() -> None:
    assert [cents_text(value) for value in (0, 7, 100050, -5, -12345)] == [
        "0.00",
        "0.07",
        "1000.50",
        "-0.05",
        "-123.45",
    ]


@given(
    st.integers(4295128739, 1461446703485210103287273052203988822378723970342),
    st.integers(0, 77),
    st.integers(0, 77),
)
def test_a_price_is_the_square_rounded_down(sqrt_price: int, decimals0: int, decimals1: int) -> None:
    text = price_text(SqrtPriceX96(sqrt_price), decimals0, decimals1)
    with localcontext() as context:
        context.prec = 400
        exact = (Decimal(sqrt_price) ** 2 / Decimal(2**192)).scaleb(decimals0 - decimals1)
        shown = Decimal(text)
        assert shown <= exact
        # At least 16 digits are right, and no more than 19 are shown.
        assert exact - shown < exact * Decimal(10) ** -(PRICE_DIGITS - 2)
        assert len(shown.normalize().as_tuple().digits) <= PRICE_DIGITS + 1


def test_prices_people_know() -> None:
    assert price_text(SqrtPriceX96(2**96), 18, 18) == "1"
    assert price_text(SqrtPriceX96(2**96), 18, 6) == "1000000000000"
    # 1 WETH for 2000 USDC: token0 USDC (6), token1 WETH (18): sqrt(5e8) * 2^96.
    text = price_text(SqrtPriceX96(int(Decimal(5 * 10**8).sqrt() * 2**96)), 6, 18)
    assert text.startswith(("0.00049999999", "0.0005"))
