"""The written-out hot path equals the formulas of domain.clmath, whatever the numbers."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.clmath.amounts import amounts_at
from rtserver.domain.clmath.fees import growth_inside, owed
from rtserver.domain.clmath.tick_math import sqrt_ratio_at_tick
from rtserver.domain.ids import Address, Liquidity, RawAmount, SqrtPriceX96, Tick, TokenId
from rtserver.protocols.base import Patches
from rtserver.protocols.uniswap_v3.evaluate import evaluate_pool_price, evaluate_ranges, position_view
from rtserver.protocols.uniswap_v3.state import Nft, Pool, Range, Token

OWNER, T0, T1 = (Address(f"0x{digit * 40}") for digit in "123")
TICKS = st.integers(-887272, 887271).map(Tick)
GROWTH = st.one_of(st.integers(0, 2**256 - 1), st.sampled_from([0, 1, 2**256 - 1]))
U128 = st.one_of(st.integers(0, 2**128 - 1), st.sampled_from([0, 1, 2**128 - 1]))
CENTS = st.one_of(st.none(), st.integers(0, 2**160))
PAIRS = st.tuples(GROWTH, GROWTH)
OWED = st.tuples(U128, U128)


def _token(address: Address) -> Token:
    return Token(address=address, symbol="T", decimals=18, view={"symbol": "T"})


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


@given(
    bounds=st.tuples(TICKS, TICKS).filter(lambda pair: pair[0] != pair[1]).map(sorted),
    tick=TICKS, above_tick=st.integers(-1, 10**9), globals_=PAIRS, outs=st.tuples(PAIRS, PAIRS), last=PAIRS,
    core_last=PAIRS, stored=OWED, core_stored=OWED, liquidity=U128, core_liquidity=U128, cents=st.tuples(CENTS, CENTS),
    principal=st.one_of(st.just((None, None)), OWED),
)  # fmt: skip
def test_a_position_shows_what_the_formulas_say(
    bounds: list[Tick],
    tick: Tick,
    above_tick: int,
    globals_: tuple[int, int],
    outs: tuple[tuple[int, int], tuple[int, int]],
    last: tuple[int, int],
    core_last: tuple[int, int],
    stored: tuple[int, int],
    core_stored: tuple[int, int],
    liquidity: int,
    core_liquidity: int,
    cents: tuple[int | None, int | None],
    principal: tuple[int | None, int | None],
) -> None:
    lower, upper = bounds
    price = SqrtPriceX96(sqrt_ratio_at_tick(tick) + above_tick)
    pool = Pool(
        address=OWNER, token0=T0, token1=T1, fee_pips=500, keeps_growth=True, has_growth=True, is_read=True,
        sqrt_price=price, tick=tick, growth0=globals_[0], growth1=globals_[1],
        ticks={lower: (*outs[0], 0), upper: (*outs[1], 0)},
    )  # fmt: skip
    rng = Range(pool, lower, upper, b"", core_read=True, core_liquidity=core_liquidity,
                core_last0=core_last[0], core_last1=core_last[1],
                core_owed0=core_stored[0], core_owed1=core_stored[1])  # fmt: skip
    nft = Nft(token_id=TokenId(1), owner=OWNER, range=rng, liquidity=liquidity, last0=last[0], last1=last[1],
              owed0=stored[0], owed1=stored[1])  # fmt: skip
    nft.set_principal(*principal)
    rng.nfts[nft.token_id] = nft
    tokens = _token(T0), _token(T1)
    sets: list[Nft] = []
    moved = evaluate_pool_price(pool, *tokens, *cents, 200)
    assert evaluate_ranges(pool, [rng], moved, *cents, sets, {}, {}) == []
    assert sets == [nft]
    view = position_view(nft, (1, "uniswap-v3", *tokens))

    sqrt_lower, sqrt_upper = sqrt_ratio_at_tick(lower), sqrt_ratio_at_tick(upper)
    amounts = amounts_at(price, sqrt_lower, sqrt_upper, Liquidity(liquidity))
    assert (view["amount0"], view["amount1"]) == tuple(map(str, amounts))
    fees: list[int | None] = []
    for side in (0, 1):
        inside = growth_inside(tick, lower, upper, globals_[side], outs[0][side], outs[1][side])
        core = owed(inside, core_last[side], Liquidity(core_liquidity), RawAmount(core_stored[side]))
        if liquidity:
            mine = owed(inside, last[side], Liquidity(liquidity), RawAmount(stored[side]))
        else:
            mine, core = RawAmount(stored[side]), RawAmount(core_stored[side])
        collectable = min(mine, core)
        assert view[f"collectable{side}"] == str(collectable)
        known = principal[side]
        fees.append(None if known is None else max(collectable - known, 0))
        assert view[f"fees{side}"] == _text(fees[side])
    assert view["isActive"] == (liquidity > 0 and lower <= tick < upper)
    assert (view["liquidity"], view["tick"]) == (str(liquidity), tick)
    for name, parts in (("valueUSD", amounts), ("feesUSD", fees)):
        if None in parts or any(part and price_ is None for part, price_ in zip(parts, cents, strict=True)):
            assert view[name] is None
            continue
        exact = sum(
            (Fraction((part or 0) * (price_ or 0), 1 << 128) for part, price_ in zip(parts, cents, strict=True))
        )
        shown = view[name]
        assert isinstance(shown, str)
        assert abs(Fraction(shown) * 100 - exact) <= Fraction(1, 2)

    # Evaluating again without a change says nothing.
    patches: dict[int, Patches] = {}
    sets.clear()
    evaluate_ranges(pool, [rng], evaluate_pool_price(pool, *tokens, *cents, 200), *cents, sets, patches, {})
    assert (sets, [batch.texts for batch in patches.values() if batch.texts]) == ([], [])
