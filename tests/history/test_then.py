"""A record's value, split by its pool's price, is the two prices that it was reckoned with."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.cents import pair_cents
from rtserver.domain.ids import Address
from rtserver.history.then import prices_of
from rtserver.store.records import Valued

A, B = Address("0x" + "a" * 40), Address("0x" + "b" * 40)


@given(
    cents0=st.integers(2**70, 2**110),
    cents1=st.integers(2**70, 2**110),
    amounts=st.tuples(*[st.one_of(st.just(0), st.integers(10**22, 10**24))] * 2).filter(any),
)
def test_prices_come_back(cents0: int, cents1: int, amounts: tuple[int, int]) -> None:
    sqrt_price = isqrt((cents0 << 192) // cents1)
    value = pair_cents(*amounts, cents0, cents1)
    assert value is not None
    assert value >= 10_000
    record = Valued(
        timestamp=1, value_cents=value, amount0=amounts[0], amount1=amounts[1], sqrt_price_x96=sqrt_price
    )  # fmt: skip
    found = prices_of(record, (A, B))
    for told, real in ((found[A], cents0), (found[B], cents1)):
        # Half a cent of $100 at most, and what the square root leaves out.
        assert abs(Fraction(told, real) - 1) < Fraction(1, 10_000)


def test_nothing_tells_nothing() -> None:
    empty = Valued(timestamp=1, value_cents=10_000, amount0=0, amount1=0, sqrt_price_x96=2**96)
    assert prices_of(empty, (A, B)) == {}
