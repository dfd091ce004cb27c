"""What stands on the local chain: which tokens and pools, at which prices, and where they ended up.

Values only. Who deploys them is `deploy.py`; how they are used is `actions.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Final

__all__ = [
    "DEMO_POOLS",
    "DEMO_TOKENS",
    "TICK_SPACING",
    "WETH_SPEC",
    "Deployment",
    "Incentive",
    "Pool",
    "PoolSpec",
    "Token",
    "TokenSpec",
    "full_range",
    "sqrt_price_of",
    "tick_of_price",
]

# The fee tiers that the factory enables in its constructor, and their tick spacings.
TICK_SPACING: Final[Mapping[int, int]] = {500: 10, 3000: 60, 10000: 200, 100: 1}
_MAX_TICK: Final = 887272


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """A token to deploy; `usd_cents` is what one whole token costs when the chain begins."""

    symbol: str
    name: str
    decimals: int
    usd_cents: int


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool to open: two symbols in any order, and the dollars of each side in its full-range liquidity."""

    symbol_a: str
    symbol_b: str
    fee_pips: int
    depth_usd: int


DEMO_TOKENS: Final = (
    TokenSpec("USDC", "USD Coin", 6, 1_00),
    TokenSpec("USDT", "Tether USD", 6, 1_00),
    TokenSpec("WBTC", "Wrapped BTC", 8, 60_000_00),
    TokenSpec("DAI", "Dai Stablecoin", 18, 1_00),
    TokenSpec("UNI", "Uniswap", 18, 8_00),
    TokenSpec("LINK", "ChainLink Token", 18, 15_00),
)
WETH_SPEC: Final = TokenSpec("WETH", "Wrapped Ether", 18, 3_000_00)

DEMO_POOLS: Final = (
    PoolSpec("WETH", "USDC", 500, 8_000_000),
    PoolSpec("WETH", "USDC", 3000, 5_000_000),
    PoolSpec("WETH", "USDT", 500, 4_000_000),
    PoolSpec("WBTC", "WETH", 3000, 5_000_000),
    PoolSpec("WBTC", "USDC", 500, 2_000_000),
    PoolSpec("DAI", "USDC", 100, 10_000_000),
    PoolSpec("USDC", "USDT", 100, 10_000_000),
    PoolSpec("UNI", "WETH", 3000, 1_500_000),
    PoolSpec("LINK", "WETH", 3000, 1_500_000),
    PoolSpec("LINK", "USDC", 10000, 800_000),
)


@dataclass(frozen=True, slots=True)
class Token:
    """A deployed token. Addresses here are lower-case hex."""

    symbol: str
    address: str
    decimals: int
    usd_cents: int

    def raw_of_usd(self, usd: float) -> int:
        """Return how many smallest units cost that many dollars at the beginning's price."""
        return int(usd * 100 * 10**self.decimals) // self.usd_cents


@dataclass(frozen=True, slots=True)
class Pool:
    """A deployed pool, its tokens in the pool's own order."""

    address: str
    token0: Token
    token1: Token
    fee_pips: int
    tick_spacing: int

    @property
    def name(self) -> str:
        return f"{self.token0.symbol}/{self.token1.symbol} {self.fee_pips / 10_000:g}%"

    def align(self, tick: int) -> int:
        """Return the nearest usable tick at or under `tick`."""
        return tick // self.tick_spacing * self.tick_spacing

    @property
    def full_range(self) -> tuple[int, int]:
        return full_range(self.tick_spacing)


@dataclass(frozen=True, slots=True)
class Incentive:
    """A v3-staker incentive, in the order of its key."""

    reward_token: str
    pool: str
    start_time: int
    end_time: int
    refundee: str

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        return (self.reward_token, self.pool, self.start_time, self.end_time, self.refundee)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where everything is.

    `house` deployed all of it and owns the full-range base liquidity; `trader` swaps; `stranger` meddles
    with other people's positions; `owners` are everyone else.
    """

    chain_id: int
    factory: str
    position_manager: str
    router: str
    weth: str
    staker: str
    actor: str
    tokens: Mapping[str, Token]
    pools: tuple[Pool, ...]
    incentives: tuple[Incentive, ...]
    house: str
    trader: str
    stranger: str
    owners: tuple[str, ...]

    @property
    def stablecoins(self) -> tuple[str, ...]:
        return tuple(self.tokens[s].address for s in ("USDC", "USDT", "DAI") if s in self.tokens)

    def pool(self, symbol_a: str, symbol_b: str, fee_pips: int) -> Pool:
        """Return the pool of two symbols in any order; KeyError if there is none."""
        for pool in self.pools:
            if pool.fee_pips == fee_pips and {pool.token0.symbol, pool.token1.symbol} == {symbol_a, symbol_b}:
                return pool
        raise KeyError((symbol_a, symbol_b, fee_pips))


def full_range(tick_spacing: int) -> tuple[int, int]:
    """Return the widest usable ticks."""
    edge = _MAX_TICK // tick_spacing * tick_spacing
    return -edge, edge


def sqrt_price_of(token0: Token, token1: Token) -> int:
    """Return sqrtPriceX96 at the tokens' dollar prices, rounded down."""
    # (cents0 / 10^d0) / (cents1 / 10^d1), all in one square root: exact to the last bit.
    return isqrt((token0.usd_cents * 10**token1.decimals << 192) // (token1.usd_cents * 10**token0.decimals))


def tick_of_price(raw_price: float) -> int:
    """Return the tick of a raw price (token1 units per token0 unit), good enough to choose a range by."""
    return math.floor(math.log(raw_price) / math.log(1.0001))
