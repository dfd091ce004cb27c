"""The one sum behind every value: exact to half a cent, unknown only where something of unknown price is there."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.cents import cents_of, pair_cents, worth_x128
from rtserver.domain.ids import Address

TOKENS = [Address(f"0x{number:040x}") for number in range(4)]
AMOUNTS = st.dictionaries(
    st.sampled_from(TOKENS), st.one_of(st.just(0), st.integers(-(2**128), 2**128)), max_size=len(TOKENS)
)
PRICES = st.dictionaries(st.sampled_from(TOKENS), st.integers(0, 2**160), max_size=len(TOKENS))


@given(amounts=AMOUNTS, prices=PRICES)
def test_a_sum_is_unknown_only_for_something_without_a_price(
    amounts: dict[Address, int], prices: dict[Address, int]
) -> None:
    cents = cents_of(amounts, prices)
    if any(amount and token not in prices for token, amount in amounts.items()):
        assert (cents, worth_x128(amounts, prices)) == (None, None)
        return
    exact = sum((amount * Fraction(prices.get(token, 0), 1 << 128) for token, amount in amounts.items()), Fraction())
    assert cents is not None
    assert -Fraction(1, 2) < cents - exact <= Fraction(1, 2)


@given(amounts=AMOUNTS, prices=PRICES, zero=st.sampled_from(TOKENS))
def test_nothing_of_a_token_changes_nothing(
    amounts: dict[Address, int], prices: dict[Address, int], zero: Address
) -> None:
    rest = {token: amount for token, amount in amounts.items() if token != zero}
    assert cents_of({**rest, zero: 0}, prices) == cents_of(rest, prices)


@given(amounts=st.tuples(*[st.one_of(st.just(0), st.integers(0, 2**128))] * 2), prices=PRICES)
def test_a_pair_is_the_sum_of_its_two(amounts: tuple[int, int], prices: dict[Address, int]) -> None:
    pair = dict(zip(TOKENS[:2], amounts, strict=True))
    assert pair_cents(*amounts, *map(prices.get, TOKENS[:2])) == cents_of(pair, prices)


def test_what_is_unknown_has_no_value() -> None:
    assert (cents_of(None, {}), cents_of({}, {}), cents_of({TOKENS[0]: 0}, {})) == (None, 0, 0)
