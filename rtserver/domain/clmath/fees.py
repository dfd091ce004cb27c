"""Fee growth inside a range, and what of it is owed. All sums wrap, as the contracts' do."""

from typing import Final

from ..ids import Liquidity, RawAmount, Tick

__all__ = ["MASK_128", "MASK_256", "growth_inside", "owed"]

MASK_128: Final = (1 << 128) - 1
MASK_256: Final = (1 << 256) - 1


def growth_inside(
    tick: Tick, lower: Tick, upper: Tick, growth_global: int, outside_lower: int, outside_upper: int
) -> int:
    """Return one token's fee growth inside [lower, upper), Q128.128 modulo 2^256.

    `tick` is slot0.tick, never derived from the price: at a boundary they differ.

    Source: Uniswap/v3-core contracts/libraries/Tick.sol, getFeeGrowthInside.
    """
    below = outside_lower if tick >= lower else growth_global - outside_lower
    above = outside_upper if tick < upper else growth_global - outside_upper
    return (growth_global - below - above) & MASK_256


def owed(inside: int, inside_last: int, liquidity: Liquidity, stored: RawAmount) -> RawAmount:
    """Return what a poke would leave in tokensOwed: growth since the last poke plus what is stored.

    Rounded down, modulo 2^128.

    Source: Uniswap/v3-periphery contracts/NonfungiblePositionManager.sol, collect.
    """
    return RawAmount(((((inside - inside_last) & MASK_256) * liquidity >> 128) + stored) & MASK_128)
