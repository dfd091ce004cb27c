"""The state that a Uniswap v3 book keeps: tokens, pools, ranges and NFTs, as the contracts last said.

Mutable and slotted: a block touches thousands of these. Decides nothing.
"""

from dataclasses import dataclass, field
from typing import Final

from ...domain.clmath.tick_math import sqrt_ratio_at_tick
from ...domain.diff import JsonObject
from ...domain.ids import Address, SqrtPriceX96, Tick, TokenId
from .life import Lifetime
from .ring import PoolRing, Ring

__all__ = ["TOUCHED", "WHOLE", "Nft", "Pool", "Range", "RangeKey", "Token"]

# News of a position: its owner or liquidity was read anew; it has to be told whole.
TOUCHED: Final = 1
WHOLE: Final = 2

RangeKey = tuple[Address, Tick, Tick]


@dataclass(slots=True, kw_only=True)
class Token:
    """An ERC-20 as it describes itself. `decimals` is None where it gives no usable answer."""

    address: Address
    symbol: str
    decimals: int | None
    view: JsonObject


@dataclass(slots=True, eq=False)
class Range:
    """One (pool, lower, upper) as the position manager holds it: NFTs in it share one core position.

    `core_*` is `pool.positions(keccak(manager, lower, upper))`; growth is Q128.128.
    """

    pool: "Pool"
    lower: Tick
    upper: Tick
    core_key: bytes
    sqrt_lower: SqrtPriceX96 = field(init=False)
    sqrt_upper: SqrtPriceX96 = field(init=False)
    core_read: bool = False
    core_liquidity: int = 0
    core_last0: int = 0
    core_last1: int = 0
    core_owed0: int = 0
    core_owed1: int = 0
    nfts: "dict[TokenId, Nft]" = field(default_factory=dict)
    was_in_range: bool = False
    price_lower: str | None = None
    price_upper: str | None = None

    def __post_init__(self) -> None:
        """Derive the square-root prices of the two ticks."""
        self.sqrt_lower = sqrt_ratio_at_tick(self.lower)
        self.sqrt_upper = sqrt_ratio_at_tick(self.upper)

    def is_ready(self) -> bool:
        """Return whether everything that an evaluation needs has been read."""
        ticks = self.pool.ticks
        return (
            self.core_read
            and self.pool.is_ready()
            and ticks.get(self.lower) is not None
            and ticks.get(self.upper) is not None
        )


@dataclass(slots=True, eq=False)
class Pool:
    """A pool's price, growth and those ticks that bound a tracked range.

    `ticks` maps a tick to (feeGrowthOutside0X128, feeGrowthOutside1X128, secondsPerLiquidityOutsideX128), None
    while unread.
    `keeps_time` is True for a pool in which a tracked position is staked: its last observation is kept, too, as
    (timestamp, secondsPerLiquidityCumulativeX128) in `observed`; `observed_at` is its index, as slot0 says.
    `keeps_growth` is False for a pool that only prices a token: it needs price and depth alone.
    `walked` is the last tick that logs since the last read led to: where the next swap starts.
    `span` is (lowest, highest) tick visited since the last read: ticks in (low, high] may have flipped.
    """

    address: Address
    token0: Address
    token1: Address
    fee_pips: int
    keeps_growth: bool = False
    keeps_time: bool = False
    observed_at: int = 0
    observed: tuple[int, int] | None = None
    has_growth: bool = False
    is_read: bool = False
    exists: bool = True
    sqrt_price: SqrtPriceX96 = SqrtPriceX96(0)  # noqa: RUF009 - a NewType of int is immutable
    tick: Tick = Tick(0)  # noqa: RUF009
    liquidity: int = 0
    growth0: int = 0
    growth1: int = 0
    ticks: dict[Tick, tuple[int, int, int] | None] = field(default_factory=dict)
    ranges: dict[tuple[Tick, Tick], Range] = field(default_factory=dict)
    # The ranges that each tick bounds: one owner may have thousands, and looking through all for each is a stall.
    bounded: dict[Tick, set[Range]] = field(default_factory=dict)
    walked: Tick | None = None
    span: tuple[Tick, Tick] | None = None
    # As last shown.
    shown_tick: Tick | None = None
    price: str | None = None
    # Whether the price is further from that of its tokens than the limit; None while that is unknown.
    deviates: bool | None = None
    view: JsonObject | None = None
    # Its fee growth in the last week, of a pool with a sampled position.
    ring: PoolRing | None = None

    def is_ready(self) -> bool:
        """Return whether everything that is kept of the pool has been read."""
        return self.is_read and (self.has_growth or not self.keeps_growth)


@dataclass(slots=True, eq=False)
class Nft:
    """One position NFT as `positions(tokenId)` answers it, and its last evaluated view.

    `principal0/1` is withdrawn principal inside tokensOwed; None where the history could not be read.
    """

    token_id: TokenId
    owner: Address
    range: Range
    liquidity: int
    last0: int
    last1: int
    owed0: int
    owed1: int
    principal0: int | None = 0
    principal1: int | None = 0
    # Whether any owed principal is left, or unknown: the hot path asks one thing instead of four.
    has_principal: bool = False
    # What the next evaluation has to tell beyond changed numbers: TOUCHED, WHOLE.
    news: int = WHOLE
    # As last shown. Integers: comparing them costs a third of comparing their text. None shows as null.
    is_shown: bool = False
    was_active: bool | None = None
    amount0: int = -1
    amount1: int = -1
    collectable0: int = -1
    collectable1: int = -1
    value_cents: int | None = None
    fees_cents: int | None = None
    # In how many places it is staked, and what it has earned there: see `staked`.
    stakes: int = 0
    rewards: JsonObject | None = None
    # The same by token, in smallest units; None where a part of it is unknown. And in US cents, as last shown.
    earned: dict[Address, int] | None = None
    rewards_cents: int | None = None
    # Its own events, None before the first one and while they are asked for; and what it was in the last week.
    life: Lifetime | None = None
    ring: Ring | None = None

    def lived(self) -> Lifetime:
        """Return its life; it begins with this, where it hasn't yet: for 50,000 that nobody needs yet it costs 8 % of
        each block, as they lie between what is looked at.
        """
        if self.life is None:
            self.life = Lifetime()
        return self.life

    @property
    def whole_life(self) -> Lifetime | None:
        """Return its life, None while some of that is unknown."""
        return self.life if self.life is not None and self.life.is_known else None

    def set_principal(self, principal0: int | None, principal1: int | None) -> None:
        """Set owed principal; the fees are told again, and the whole object where they became unknown."""
        if principal0 is None and self.principal0 is not None:
            self.news |= WHOLE
        self.principal0, self.principal1 = principal0, principal1
        self.has_principal = principal0 != 0 or principal1 != 0
        self.collectable0 = self.collectable1 = -1
