"""What stakes would earn in a year at the present rate. Pure."""

from collections.abc import Mapping

from ....domain.clmath.rewards import yearly_reward
from ....domain.ids import Address, Liquidity, RawAmount
from .cells import IncentiveSums, Stakes
from .events import IncentiveId, IncentiveKey

__all__ = ["yearly_rates"]


def yearly_rates(
    token: Stakes,
    keys: Mapping[IncentiveId, IncentiveKey],
    incentives: Mapping[IncentiveId, IncentiveSums],
    liquidity: Liquidity,
    now: int,
) -> dict[Address, int] | None:
    """Return what a position in range would earn by all of its stakes, by token, raw units; None where unknown.

    Args:
        token: The position's stakes.
        keys: Terms of incentives.
        incentives: Their sums.
        liquidity: What the pool has in range.
        now: The block's timestamp; an incentive pays from its start to its end.
    """
    yearly: dict[Address, int] = {}
    for incentive, stake in token.found.items():
        if stake == (0, 0):
            continue
        key, known = keys.get(incentive), incentives.get(incentive)
        if stake is None or key is None or known is None or known.sums is None:
            return None
        each = yearly.get(key.reward_token, 0)
        if key.start <= now < key.end:
            each += yearly_reward(
                unclaimed=RawAmount(known.sums[0]), claimed_x128=known.sums[1], start=key.start, end=key.end,
                staked=Liquidity(stake[1]), liquidity=liquidity,
            )  # fmt: skip
        yearly[key.reward_token] = each
    return yearly
