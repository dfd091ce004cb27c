"""What is kept of a staker: cells, each the answer of one of its views, and who needs them. Decides nothing."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ....domain.ids import Address, TokenId
from .events import IncentiveId

__all__ = ["Cell", "Depositor", "IncentiveSums", "Stakes", "Words"]

# One answer of the contract: ("stake", token id, incentive), ("incentive", id) or ("claim", owner, token).
Cell: TypeAlias = tuple[Any, ...]
# (secondsPerLiquidityInsideInitialX128, liquidity); (totalRewardUnclaimed, totalSecondsClaimedX128).
Words: TypeAlias = tuple[int, int]


@dataclass(slots=True)
class IncentiveSums:
    """An incentive's sums, None while unread, and the tracked positions staked in it."""

    sums: Words | None = None
    users: set[TokenId] = field(default_factory=set)


@dataclass(slots=True)
class Stakes:
    """A tracked position: how often it is staked, and its stakes as far as they are known."""

    stakes: int = 0
    found: dict[IncentiveId, Words | None] = field(default_factory=dict)


@dataclass(slots=True)
class Depositor:
    """A wanted owner: every position ever deposited for it, and what it can claim, None while unread."""

    ids: set[TokenId] = field(default_factory=set)
    claims: dict[Address, int | None] = field(default_factory=dict)
