"""Uniswap's v3-staker: incentives that reward staked position NFTs by the second."""

from .staker import V3Staker

__all__ = ["V3Staker"]
