"""The two yardsticks beside the real path: the bare arithmetic, and the straightforward way to write it.

`floor_inputs` + `bare_arithmetic` do nothing but the integer operations. `PlainPosition` recomputes one
position through the formulas of domain.clmath, builds its whole object, compares it with the one before and
encodes what changed. Both compute the same values as the server; the plain one also proves that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import orjson

from bench.common_chain import MemoryNft, MemoryPool
from rtserver.domain.clmath.amounts import amounts_at
from rtserver.domain.clmath.fees import MASK_128, MASK_256, growth_inside, owed
from rtserver.domain.clmath.tick_math import sqrt_ratio_at_tick
from rtserver.domain.diff import JsonObject, diff
from rtserver.domain.ids import Liquidity, RawAmount, SqrtPriceX96, Tick
from rtserver.domain.text import cents_text, price_text

__all__ = ["PlainPosition", "bare_arithmetic", "expected_fields", "floor_inputs"]

_HALF: Final = 1 << 127
_Cents: TypeAlias = Mapping[str, int]
_Row: TypeAlias = tuple[int, int, int, int, int]
_RangeInputs: TypeAlias = tuple[int, int, int, int, tuple[int, int, int, int, int], list[_Row]]


def floor_inputs(pool: MemoryPool) -> list[_RangeInputs]:
    """Return a pool's ranges as bare integers: sqrt prices, ticks, the core position, and a row for each NFT."""
    rows: dict[int, list[_Row]] = {id(found): [] for found in pool.ranges.values()}
    for nft in pool.nfts:
        rows[id(nft.range)].append((nft.liquidity, *nft.last, *nft.owed))
    return [
        (
            sqrt_ratio_at_tick(Tick(found.lower)),
            sqrt_ratio_at_tick(Tick(found.upper)),
            found.lower,
            found.upper,
            (found.liquidity, *found.last, *found.owed),
            rows[id(found)],
        )
        for found in pool.ranges.values()
    ]


def bare_arithmetic(pool: MemoryPool, ranges: Iterable[_RangeInputs], cents0: int, cents1: int) -> int:
    """Compute amounts, fees and values of every NFT of a pool; return their sum, so that none can be skipped."""
    total = 0
    price, tick, (growth0, growth1), outside = pool.sqrt_price, pool.tick, pool.growth, pool.outside
    for sqrt_lower, sqrt_upper, lower, upper, (core_l, core_last0, core_last1, stored0, stored1), rows in ranges:
        low, high = outside[lower], outside[upper]
        if tick < lower:
            inside0, inside1 = low[0] - high[0], low[1] - high[1]
        elif tick < upper:
            inside0, inside1 = growth0 - low[0] - high[0], growth1 - low[1] - high[1]
        else:
            inside0, inside1 = high[0] - low[0], high[1] - low[1]
        core0 = ((((inside0 - core_last0) & MASK_256) * core_l >> 128) + stored0) & MASK_128
        core1 = ((((inside1 - core_last1) & MASK_256) * core_l >> 128) + stored1) & MASK_128
        num0, num1, den0 = 0, 0, 1
        if price <= sqrt_lower:
            num0, den0 = (sqrt_upper - sqrt_lower) << 96, sqrt_upper * sqrt_lower
        elif price < sqrt_upper:
            num0, den0, num1 = (sqrt_upper - price) << 96, sqrt_upper * price, price - sqrt_lower
        else:
            num1 = sqrt_upper - sqrt_lower
        for liquidity, last0, last1, owed0, owed1 in rows:
            amount0 = liquidity * num0 // den0
            amount1 = liquidity * num1 >> 96
            fees0 = ((((inside0 - last0) & MASK_256) * liquidity >> 128) + owed0) & MASK_128
            fees1 = ((((inside1 - last1) & MASK_256) * liquidity >> 128) + owed1) & MASK_128
            if core0 < fees0:
                fees0 = core0
            if core1 < fees1:
                fees1 = core1
            value = (amount0 * cents0 + amount1 * cents1 + _HALF) >> 128
            total += value + ((fees0 * cents0 + fees1 * cents1 + _HALF) >> 128)
    return total


def expected_fields(nft: MemoryNft, decimals: tuple[int, int], cents: tuple[int, int]) -> JsonObject:
    """Return every field that a swap can change, from the formulas of domain.clmath and nothing else.

    Args:
        nft: The position; its pool and range hold the state to evaluate at.
        decimals: Of the two tokens.
        cents: US cents × 2^128 per smallest unit of the two tokens.
    """
    pool, found = nft.pool, nft.range
    tick, lower, upper = Tick(pool.tick), Tick(found.lower), Tick(found.upper)
    price = SqrtPriceX96(pool.sqrt_price)
    liquidity = Liquidity(nft.liquidity)
    amounts = amounts_at(price, sqrt_ratio_at_tick(lower), sqrt_ratio_at_tick(upper), liquidity)
    fees: list[int] = []
    for i in (0, 1):
        low, high = pool.outside[lower][i], pool.outside[upper][i]
        inside = growth_inside(tick, lower, upper, pool.growth[i], low, high)
        mine = owed(inside, nft.last[i], liquidity, RawAmount(nft.owed[i]))
        shared = owed(inside, found.last[i], Liquidity(found.liquidity), RawAmount(found.owed[i]))
        fees.append(min(mine, shared))
    value, fee_value = (
        (pair[0] * cents[0] + pair[1] * cents[1] + _HALF) >> 128 for pair in (amounts, (fees[0], fees[1]))
    )
    return {
        "tick": pool.tick,
        "price": price_text(price, *decimals),
        "isActive": nft.liquidity > 0 and lower <= tick < upper,
        "amount0": str(amounts[0]),
        "amount1": str(amounts[1]),
        "collectable0": str(fees[0]),
        "collectable1": str(fees[1]),
        "fees0": str(fees[0]),
        "fees1": str(fees[1]),
        "valueUSD": cents_text(value),
        "feesUSD": cents_text(fee_value),
    }


@dataclass(slots=True)
class PlainPosition:
    """One position recomputed the straightforward way."""

    nft: MemoryNft
    fixed: JsonObject
    decimals: tuple[int, int]
    key: str = field(init=False)
    shown: JsonObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Derive the key under which a channel shows it."""
        self.key = str(self.nft.token_id)

    def recompute(self, cents: tuple[int, int]) -> bytes:
        """Build the whole object, compare it with the last one, and return the change as JSON."""
        now = {**self.fixed, **expected_fields(self.nft, self.decimals, cents)}
        change = diff({self.key: self.shown}, {self.key: now})
        self.shown = now
        return orjson.dumps({"set": change.set, "patch": change.patch})
