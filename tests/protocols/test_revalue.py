"""Revaluing from the last amounts tells what a whole evaluation would tell, for whatever moved."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.clmath.tick_math import sqrt_ratio_at_tick
from rtserver.domain.diff import EncodedPatch, JsonObject
from rtserver.domain.ids import Address, Tick, TokenId
from rtserver.protocols.base import Patches
from rtserver.protocols.uniswap_v3.evaluate import evaluate_pool_price, evaluate_ranges, position_view
from rtserver.protocols.uniswap_v3.revalue import revalue_ranges
from rtserver.protocols.uniswap_v3.state import Nft, Pool, Range, Token

OWNER, T0, T1 = (Address(f"0x{digit * 40}") for digit in "123")
TOKENS = (
    Token(address=T0, symbol="T", decimals=18, view={"symbol": "T"}),
    Token(address=T1, symbol="T", decimals=18, view={"symbol": "T"}),
)
LIQUIDITY = st.one_of(st.just(0), st.integers(1, 10**24))
CENTS = st.one_of(st.integers(0, 2**12), st.integers(2**76, 2**84))
PRINCIPAL = st.one_of(st.just((0, 0)), st.just((None, None)), st.tuples(st.integers(0, 10**20), st.integers(0, 10**20)))
POSITIONS = st.lists(
    st.tuples(st.integers(-3, 3), LIQUIDITY, st.integers(0, 10**20), PRINCIPAL), min_size=1, max_size=8
)


def _pool(positions: list[tuple[int, int, int, tuple[int | None, int | None]]]) -> Pool:
    """Return a pool at tick 0 with positions in ranges around and beside it."""
    pool = Pool(
        address=OWNER, token0=T0, token1=T1, fee_pips=500, keeps_growth=True, has_growth=True, is_read=True,
        sqrt_price=sqrt_ratio_at_tick(Tick(0)), growth0=5 << 120, growth1=7 << 120,
    )  # fmt: skip
    for index, (place, liquidity, owed, principal) in enumerate(positions):
        lower, upper = Tick(60 * place - 30), Tick(60 * place + 30)
        pool.ticks[lower] = pool.ticks[upper] = (0, 0, 0)
        rng = pool.ranges.get((lower, upper))
        if rng is None:
            rng = pool.ranges[lower, upper] = Range(pool, lower, upper, b"", core_read=True, core_liquidity=10**30)
        nft = Nft(TokenId(index), OWNER, rng, liquidity=liquidity, last0=0, last1=0, owed0=owed, owed1=owed)
        nft.set_principal(*principal)
        rng.nfts[nft.token_id] = nft
    return pool


def _told(patches: dict[int, Patches]) -> dict[TokenId, tuple[int, JsonObject]]:
    told: dict[TokenId, tuple[int, JsonObject]] = {}
    for fields, batch in patches.items():
        for held, text in zip(batch.positions, batch.texts, strict=True):
            assert held.token_id not in told
            told[held.token_id] = fields, json.loads(text)
    return told


def _views(pool: Pool) -> list[JsonObject]:
    return [position_view(nft, (1, "uniswap-v3", *TOKENS)) for rng in pool.ranges.values() for nft in rng.nfts.values()]


@given(
    positions=POSITIONS,
    before=st.tuples(st.one_of(st.none(), CENTS), CENTS),
    after=st.tuples(CENTS, CENTS),
    dirty=st.integers(0, 3),
)
def test_revaluing_is_a_whole_evaluation_of_what_only_prices_moved(
    positions: list[tuple[int, int, int, tuple[int | None, int | None]]],
    before: tuple[int | None, int],
    after: tuple[int, int],
    dirty: int,
) -> None:
    whole, quick = _pool(positions), _pool(positions)
    moves: list[EncodedPatch | None] = []
    for pool in (whole, quick):
        evaluate_ranges(
            pool, pool.ranges.values(), evaluate_pool_price(pool, *TOKENS, *before, 200), *before, [], {}, {}
        )
        moves.append(evaluate_pool_price(pool, *TOKENS, *after, 200))
    assert moves[0] == moves[1]
    if moves[0] is not None and not moves[0][1]:
        return  # a field became unknown: such a pool is evaluated whole
    expected: dict[int, Patches] = {}
    sets: list[Nft] = []
    evaluate_ranges(whole, whole.ranges.values(), moves[0], *after, sets, expected, {})
    assert sets == []

    found: dict[int, Patches] = {}
    left = set(list(quick.ranges.values())[:dirty])
    revalue_ranges(quick, left, moves[1], *after, found)
    evaluate_ranges(quick, left, moves[1], *after, sets, found, {})
    assert (_told(found), sets) == (_told(expected), [])
    assert _views(quick) == _views(whole)
