"""The price that pools tell: a median that the deep ones decide, exact, and none where nothing is deep enough."""

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt

from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.ids import Address
from rtserver.protocols.base import QuotePool
from rtserver.worth.dollars import ONE_DOLLAR, Dollars
from rtserver.worth.pool_median import QuoteToken, median_price

# In the order of their addresses: A before USD before B.
A, USD, B, DAI = (Address(f"0x{digit * 40}") for digit in "1234")
DECIMALS = {A: 18, USD: 6, B: 18, DAI: 18}
Q96 = 2**96
DOLLARS = {
    token: QuoteToken(ONE_DOLLAR, DECIMALS[token], ONE_DOLLAR.cents_x128(DECIMALS[token])) for token in (USD, DAI)
}


def _pool(name: int, token: Address, other: Address, price: Fraction, depth_usd: int) -> QuotePool:
    """Return a pool where a whole token costs so many whole others, with so many others behind it."""
    token0, token1 = sorted((token, other))
    units = price * Fraction(10 ** DECIMALS[other], 10 ** DECIMALS[token])
    ratio = units if token == token0 else 1 / units
    sqrt_price = isqrt((ratio.numerator << 192) // ratio.denominator)
    depth = depth_usd * 10 ** DECIMALS[other]
    liquidity = (depth << 96) // sqrt_price if token == token0 else depth * sqrt_price >> 96
    return QuotePool(Address(f"0x{name:040x}"), token0, token1, sqrt_price, liquidity + 1)


def _median(
    token: Address, pools: Sequence[QuotePool], *, min_depth_usd: int = 1000, agree_bps: int = 200
) -> tuple[Dollars, int] | None:
    return median_price(
        token, DECIMALS[token], pools, DOLLARS.get, min_depth_cents=min_depth_usd * 100, agree_bps=agree_bps
    )


def _near(found: tuple[Dollars, int] | None, price: Fraction | int) -> bool:
    assert found is not None
    return abs(Fraction(found[0].text) / Fraction(price) - 1) < Fraction(1, 10**9)


def test_either_side_of_a_pool() -> None:
    for token in (A, B):
        assert _near(_median(token, [_pool(1, token, USD, Fraction(2000), 10**6)]), 2000)


def test_more_than_half_of_all_depth_decides() -> None:
    pools = [
        _pool(1, A, USD, Fraction(90), 20_000),
        _pool(2, A, USD, Fraction(100), 60_000),
        _pool(3, A, DAI, Fraction(300), 30_000),
    ]
    for order in (pools, pools[::-1]):
        assert _near(_median(A, order), 100)


def test_a_pool_that_was_moved_does_not_move_the_price() -> None:
    honest = [_pool(name, A, USD, Fraction(100), 50_000) for name in (1, 2)]
    for moved in (Fraction(220), Fraction(1)):
        assert _near(_median(A, [*honest, _pool(3, A, DAI, moved, 99_000)]), 100)


def test_shallow_pools_have_no_vote() -> None:
    deep, shallow = _pool(1, A, USD, Fraction(100), 1001), [_pool(n, A, USD, Fraction(5), 999) for n in range(2, 9)]
    assert _near(_median(A, [*shallow, deep]), 100)
    assert _median(A, shallow) is None


def test_depth_is_in_dollars_not_in_units() -> None:
    # Fewer units of USD than of DAI, yet a thousand times the dollars.
    pools = [_pool(1, A, USD, Fraction(7), 10**6), _pool(2, A, DAI, Fraction(8), 10**3)]
    assert _near(_median(A, pools), 7)


def test_confidence_is_the_share_of_depth_that_agrees() -> None:
    pools = [_pool(1, A, USD, Fraction(100), 50_000), _pool(2, A, USD, Fraction(101), 20_000)]
    found = _median(A, [*pools, _pool(3, A, DAI, Fraction(150), 30_000)])
    assert found is not None
    assert found[1] in (69, 70)  # 70 % but for the rounding of the pools' own liquidity
    agreed = _median(A, pools)
    assert agreed is not None
    assert agreed[1] == 100


def test_a_pool_against_something_without_a_price_says_nothing() -> None:
    assert _median(A, [_pool(1, A, B, Fraction(5), 10**9)]) is None


def test_nothing_in_a_pool_is_nothing_known() -> None:
    pool = _pool(1, A, USD, Fraction(100), 10**6)
    assert _median(A, [QuotePool(pool.pool, A, USD, 0, pool.liquidity)]) is None
    assert _median(A, [QuotePool(pool.pool, A, USD, pool.sqrt_price, 0)]) is None
    assert _median(A, []) is None


@given(st.integers(4295128739, 1461446703485210103287273052203988822378723970342), st.integers(1, 2**128 - 1))
def test_any_single_pool_is_its_square_rounded_down(sqrt_price: int, liquidity: int) -> None:
    """Exact to the digits that are kept, or no price at all where none is plausible."""
    found = _median(A, [QuotePool(Address("0x" + "0" * 40), A, USD, sqrt_price, liquidity)], min_depth_usd=0)
    exact = Fraction(sqrt_price**2, 1 << 192) * Fraction(10**18, 10**6)
    if found is None:
        assert not Fraction(1, 10**30) <= exact < 10**15
        return
    shown = Fraction(found[0].text)
    assert shown <= exact < shown * (1 + Fraction(1, 10**17)) + Fraction(1, 10**47)
    assert found[1] == 100
