"""Rewards of a staked range: on exact fractions, and where the contract's sums wrap or its division reverts."""

from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.clmath.rewards import MASK_160, reward, seconds_inside, seconds_per_liquidity
from rtserver.domain.ids import Liquidity, RawAmount, Tick

WORD_160 = st.integers(0, MASK_160)
LIQUIDITY = st.integers(0, 2**128 - 1).map(Liquidity)
TIMES = st.integers(0, 2**32 - 1)


@given(at=TIMES, total=WORD_160, liquidity=LIQUIDITY, first=st.integers(0, 10**6), second=st.integers(0, 10**6))
def test_time_from_the_observation_is_exact_and_from_between_at_most_one_short(
    at: int, total: int, liquidity: Liquidity, first: int, second: int
) -> None:
    between = seconds_per_liquidity(at, total, liquidity, at + first)
    whole = seconds_per_liquidity(at, total, liquidity, at + first + second)
    assert whole == (total + ((first + second) << 128) // max(liquidity, 1)) & MASK_160
    stepwise = seconds_per_liquidity(at + first, between, liquidity, at + first + second)
    assert (whole - stepwise) & MASK_160 in (0, 1)


def test_a_pool_s_clock_has_32_bits() -> None:
    assert seconds_per_liquidity(2**32 - 1, 0, Liquidity(1), 2**32 + 4) == 5 << 128


@given(lower=st.integers(-100, 100), width=st.integers(1, 100), outside=st.tuples(WORD_160, WORD_160), total=WORD_160)
def test_the_three_parts_of_the_line_make_the_whole(
    lower: int, width: int, outside: tuple[int, int], total: int
) -> None:
    """Seconds below, inside and above a range add up to the pool's, whichever of them the price is in."""
    upper = lower + width
    for tick in (lower - 1, lower, upper - 1, upper):
        inside = seconds_inside(Tick(tick), Tick(lower), Tick(upper), total, *outside)
        below = outside[0] if tick >= lower else total - outside[0]
        above = outside[1] if tick < upper else total - outside[1]
        assert (below + inside + above - total) & MASK_160 == 0


def _reward(**changed: int) -> int | None:
    terms = {
        "unclaimed": 10**18, "claimed_x128": 0, "start": 1_000, "end": 2_000, "liquidity": 10, "initial": 0,
        "inside": (100 << 128) // 10, "now": 1_100,
    }  # fmt: skip
    return reward(**(terms | changed))  # type: ignore[arg-type]


def test_a_share_of_the_time() -> None:
    # All of the liquidity for a tenth of the time.
    assert _reward() == 10**17
    # After the end the same reward is shared by more seconds.
    assert _reward(now=2_000) == _reward()
    assert _reward(now=3_000) == 5 * 10**16
    # What others claimed takes its seconds with it.
    assert _reward(unclaimed=10**18 // 2, claimed_x128=500 << 128) == 10**17


def test_sums_wrap_as_the_contract_s_do() -> None:
    assert _reward(initial=MASK_160, inside=(100 << 128) // 10 - 1) == 10**17
    # The product of uint160 and uint128 keeps 160 bits.
    assert _reward(liquidity=1 << 40, inside=1 << 120) == 0


def test_where_the_contract_reverts_there_is_no_amount() -> None:
    assert _reward(now=999) is None
    assert _reward(claimed_x128=1_000 << 128) is None  # a division by nothing left
    assert _reward(unclaimed=2**256 - 1, claimed_x128=(1_000 << 128) - 1) is None  # more than 256 bits


@given(unclaimed=st.integers(0, 2**256 - 1), claimed=WORD_160, initial=WORD_160, inside=WORD_160, liquidity=LIQUIDITY)
def test_an_amount_is_the_floor_of_its_fraction(
    unclaimed: int, claimed: int, initial: int, inside: int, liquidity: Liquidity
) -> None:
    amount = reward(
        unclaimed=RawAmount(unclaimed), claimed_x128=claimed, start=0, end=1 << 31, liquidity=liquidity,
        initial=initial, inside=inside, now=1 << 31,
    )  # fmt: skip
    seconds = (inside - initial) % 2**160 * liquidity % 2**160
    left = ((1 << 31 << 128) - claimed) % 2**256
    if amount is None:
        assert left == 0 or unclaimed * seconds // left >= 2**256
    else:
        assert amount * left <= unclaimed * seconds < (amount + 1) * left
