"""Prices from pools: the deepest decides, unknown is absent, and changes are told once."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.ids import Address
from rtserver.protocols.base import QuotePool
from rtserver.worth.pool_prices import PoolPrices

# In the order of their addresses: A before USD before B.
A, USD, B, DAI = (Address(f"0x{digit * 40}") for digit in "1234")
DECIMALS = {A: 18, USD: 6, B: 18, DAI: 18}
Q96 = 2**96


def _pool(name: int, token: Address, stable: Address, sqrt_price: int, liquidity: int) -> QuotePool:
    token0, token1 = sorted((token, stable))
    return QuotePool(Address(f"0x{name:040x}"), token0, token1, sqrt_price, liquidity)


def _dollars(price: int, token: Address) -> Fraction:
    """Return the price of a whole token in dollars."""
    return Fraction(price * 10 ** DECIMALS[token], 100 << 128)


def test_a_dollar_token_is_a_dollar_as_soon_as_its_decimals_are_known() -> None:
    prices = PoolPrices([USD, DAI])
    known: dict[Address, int] = {}
    assert prices.update({}, known.get) == frozenset()
    assert prices.prices == {}
    known[USD] = 6
    assert prices.update({}, known.get) == {USD}
    assert abs(_dollars(prices.prices[USD], USD) - 1) < Fraction(1, 10**20)
    assert prices.update({}, known.get) == frozenset()


def test_either_side_of_a_pool() -> None:
    prices = PoolPrices([USD])
    # 2000 dollars a token: 2000e6 units of USD for 1e18 units of the token.
    as_token0 = int(((2000 * 10**6 << 192) // 10**18) ** 0.5)
    as_token1 = int(((10**18 << 192) // (2000 * 10**6)) ** 0.5)
    changed = prices.update(
        {A: [_pool(1, A, USD, as_token0, 10**18)], B: [_pool(2, B, USD, as_token1, 10**18)]}, DECIMALS.get
    )
    assert changed == {A, B, USD}
    for token in (A, B):
        assert abs(_dollars(prices.prices[token], token) - 2000) < Fraction(1, 1000)


def test_the_deepest_pool_decides_whatever_the_order() -> None:
    shallow, deep = _pool(1, A, USD, Q96, 10**12), _pool(2, A, USD, 2 * Q96, 10**15)
    for pools in ([shallow, deep], [deep, shallow]):
        prices = PoolPrices([USD])
        prices.update({A: pools}, DECIMALS.get)
        alone = PoolPrices([USD])
        alone.update({A: [deep]}, DECIMALS.get)
        assert prices.prices[A] == alone.prices[A]


def test_depth_is_compared_in_dollars_not_in_units() -> None:
    # A million DAI against a thousand USD: fewer units of USD, but DAI has 18 decimals.
    dai, usd = _pool(1, A, DAI, Q96, 10**6 * 10**18), _pool(2, A, USD, Q96, 10**3 * 10**6)
    prices = PoolPrices([USD, DAI])
    prices.update({A: [usd, dai]}, DECIMALS.get)
    alone = PoolPrices([DAI])
    alone.update({A: [dai]}, DECIMALS.get)
    assert prices.prices[A] == alone.prices[A]


def test_equal_depth_goes_by_address() -> None:
    first, second = _pool(1, A, USD, Q96, 10**9), _pool(2, B, USD, Q96, 10**9)
    assert first.pool < second.pool
    one, other = _pool(1, A, USD, Q96, 10**9), _pool(2, A, USD, Q96, 10**9)
    results = set()
    for pools in ([one, other], [other, one]):
        prices = PoolPrices([USD])
        prices.update({A: pools}, DECIMALS.get)
        results.add(prices.prices[A])
    assert len(results) == 1


def test_what_can_not_be_known_is_absent_and_comes_and_goes() -> None:
    prices = PoolPrices([USD])
    assert A not in prices.update({A: [_pool(1, A, USD, Q96, 0)]}, DECIMALS.get)
    assert A not in prices.update({A: [_pool(1, A, USD, 0, 10**9)]}, DECIMALS.get)
    assert A not in prices.update({A: [_pool(1, A, USD, Q96, 10**9)]}, {A: 18}.get)
    assert A not in prices.prices
    assert prices.update({A: [_pool(1, A, USD, Q96, 10**9)]}, DECIMALS.get) == {A}
    assert prices.update({A: [_pool(1, A, USD, Q96, 10**10)]}, DECIMALS.get) == frozenset()
    assert prices.update({A: []}, DECIMALS.get) == {A}
    assert A not in prices.prices


@given(st.integers(4295128739, 1461446703485210103287273052203988822378723970342), st.integers(1, 2**128 - 1))
def test_any_price_is_the_square_rounded_down(sqrt_price: int, liquidity: int) -> None:
    prices = PoolPrices([USD])
    prices.update({A: [_pool(1, A, USD, sqrt_price, liquidity)]}, DECIMALS.get)
    exact = Fraction(sqrt_price**2, 1 << 192) * Fraction(100 << 128, 10**6)
    shown = prices.prices.get(A, 0)
    assert exact - 1 - Fraction(sqrt_price**2, 1 << 192) <= shown <= exact
