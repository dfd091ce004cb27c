"""Concentrated-liquidity arithmetic on exact integers, rounding as the contracts round."""
