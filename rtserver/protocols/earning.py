"""What a position has earned, as values: exact integers in raw units, from the contracts' own words and events.

Decides nothing and knows no prices but those that were noted with an event. What is not known is None, never 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ..domain.chain import BlockRef, Log
from ..domain.ids import Address, BlockHash, TokenId

__all__ = [
    "WINDOWS_S",
    "Earnings",
    "Life",
    "LifeEvent",
    "LifeKind",
    "PastAnswer",
    "PastQuery",
    "PastSample",
    "PoolWindow",
    "Sample",
    "ThenQuery",
    "Window",
]

# Windows that rates are told over, in seconds of the chain's time: an hour, a day, a week.
WINDOWS_S: Final = (3_600, 86_400, 604_800)

# IncreaseLiquidity, DecreaseLiquidity, Collect.
LifeKind: TypeAlias = Literal["deposit", "withdrawal", "collect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one position is at the newest evaluated block.

    `inside0/1` is fee growth inside its range, Q128.128 modulo 2^256. `amount0/1` is its principal. `fees0/1` is what
    a collect would pay now less withdrawn principal; None where that part is unknown. `earned0/1` is all fees
    over its life: what collects have paid and would pay now, less all that was withdrawn; None where its past is
    unknown. `value_cents` and `fees_cents` are as shown, None without a price. `rewards` is what it earned by staking
    over its life, by token: what it would be credited now and what it was credited when it was unstaked; None
    where some of that is unknown, empty where it was never staked.
    """

    token_id: TokenId
    liquidity: int
    inside0: int
    inside1: int
    amount0: int
    amount1: int
    fees0: int | None
    fees1: int | None
    earned0: int | None
    earned1: int | None
    sqrt_price_x96: int
    tick: int
    is_active: bool
    value_cents: int | None
    fees_cents: int | None
    rewards: Mapping[Address, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeEvent:
    """One of a position's own events.

    `amount0/1` is what went into the position, what was taken out of its liquidity, or what the pool really paid:
    the manager's own Collect event may name a few units more. `fees0/1` is, of a collect, what was not withdrawn
    principal; 0 of the others. `timestamp` is in seconds, None where the block wasn't read. `cents0/1` are US cents per
    smallest unit × 2^128 then, None without a price; `basis` says where they are from.
    """

    kind: LifeKind
    block_number: int
    block_hash: BlockHash
    timestamp: int | None
    amount0: int
    amount1: int
    fees0: int
    fees1: int
    cents0: int | None
    cents1: int | None
    basis: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """All that went into a position and came out of it; `events`, oldest first, are all or the newest of them.

    `deposited0/1`, `withdrawn0/1` and `collected0/1` are over all events, also over those not listed any more:
    `is_whole` says that none is missing in the list.
    """

    deposited0: int
    deposited1: int
    withdrawn0: int
    withdrawn1: int
    collected0: int
    collected1: int
    events: tuple[LifeEvent, ...]
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Fees over a window of time that ends now.

    `length_s` is how long it should be, `covered_s` how long it is: from the newest sample that is old enough, else
    from the oldest. `fees0/1` is what was earned in that time, to the unit. `mean_cents` is the value of the principal,
    averaged over the time, in US cents; None without prices.
    """

    length_s: int
    covered_s: int
    fees0: int
    fees1: int
    mean_cents: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWindow:
    """Growth of a pool's fees over a window that ends now: per unit of liquidity in range, Q128.128."""

    length_s: int
    covered_s: int
    growth0: int
    growth1: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Earnings:
    """What rates are computed from.

    `windows` holds those of `WINDOWS_S` of which anything is known; it may be empty. `reward_rates` is, by token, what
    the position would earn by staking in a year at the present rate, raw units: 0 out of range; None where unknown.
    `owed_principal0/1` is withdrawn principal that was not collected yet, None where unknown.
    """

    sample: Sample
    token0: Address
    token1: Address
    collectable0: int
    collectable1: int
    owed_principal0: int | None
    owed_principal1: int | None
    windows: tuple[Window, ...]
    pool_windows: tuple[PoolWindow, ...]
    reward_rates: Mapping[Address, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastQuery:
    """Static calls, (contract, calldata), that are wanted of an earlier block, and of the block before it.

    Where `block` names none, they are wanted of a block near a time, `at` in seconds: not later, and not much earlier.
    """

    block: BlockHash | None = None
    at: int = 0
    calls: tuple[tuple[Address, bytes], ...]
    before: tuple[tuple[Address, bytes], ...] = ()
    # Logs of the block that are wanted, too: a contract and a first topic.
    logs: tuple[Address, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAnswer:
    """What they returned, None where a call reverted; `timestamp` is the block's, in seconds.

    `has_state` is False where the block is known, and nobody keeps its state; and where the chain is younger than the
    time that was asked for: then this is its first block.
    """

    block: BlockRef
    timestamp: int
    calls: Sequence[bytes | None] = ()
    before: Sequence[bytes | None] = ()
    logs: Sequence[Log] = ()
    has_state: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ThenQuery:
    """Prices of tokens that are wanted of a time in seconds, where no state of its block tells them.

    `pair` are the two tokens of a position's pool, `positions` those that are in the same pool: what was kept of one of
    them tells both prices.
    """

    tokens: tuple[Address, ...]
    decimals: Mapping[Address, int]
    at: int
    pair: tuple[Address, Address]
    positions: tuple[TokenId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastSample:
    """What is kept of a position at an earlier block, for the windows of a process that has just begun."""

    timestamp: int
    earned0: int | None
    earned1: int | None
    value_cents: int | None
