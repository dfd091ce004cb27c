"""The principal of a range: which token amounts its liquidity stands for at a price."""

from ..ids import Liquidity, RawAmount, SqrtPriceX96

__all__ = ["amounts_at"]


def amounts_at(
    sqrt_price: SqrtPriceX96, sqrt_lower: SqrtPriceX96, sqrt_upper: SqrtPriceX96, liquidity: Liquidity
) -> tuple[RawAmount, RawAmount]:
    """Return the token amounts that a range holds at a price.

    Args:
        sqrt_price: sqrt(token1/token0) in raw units, Q64.96.
        sqrt_lower: The same at the inclusive lower tick.
        sqrt_upper: The same at the exclusive upper tick.
        liquidity: Range liquidity, uint128.

    Returns:
        (amount0, amount1) in each token's smallest unit, both rounded down: never more than the pool
        would pay.

    Source: Uniswap/v3-periphery contracts/libraries/LiquidityAmounts.sol, getAmountsForLiquidity.
    """
    if sqrt_price <= sqrt_lower:
        amount0 = ((liquidity << 96) * (sqrt_upper - sqrt_lower)) // sqrt_upper // sqrt_lower
        return RawAmount(amount0), RawAmount(0)
    if sqrt_price < sqrt_upper:
        amount0 = ((liquidity << 96) * (sqrt_upper - sqrt_price)) // sqrt_upper // sqrt_price
        return RawAmount(amount0), RawAmount(liquidity * (sqrt_price - sqrt_lower) >> 96)
    return RawAmount(0), RawAmount(liquidity * (sqrt_upper - sqrt_lower) >> 96)
