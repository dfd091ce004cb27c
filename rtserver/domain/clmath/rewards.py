"""Seconds per liquidity inside a range, and what a stake has earned by them. All sums wrap, as the contracts' do.

Of all this only time moves between a pool's events: liquidity, tick, the last observation and the ticks'
outside values change with events alone. So what the contract answers at a later block without events is what
these functions say for that block's timestamp, to the last unit, without asking again.
"""

from typing import Final

from ..ids import Liquidity, RawAmount, Tick

__all__ = ["MASK_160", "YEAR_S", "reward", "seconds_inside", "seconds_per_liquidity", "yearly_reward"]

MASK_32: Final = (1 << 32) - 1
MASK_160: Final = (1 << 160) - 1
MASK_256: Final = (1 << 256) - 1
YEAR_S: Final = 31_536_000


def seconds_per_liquidity(observed_at: int, observed: int, liquidity: Liquidity, now: int) -> int:
    """Return the pool's seconds per liquidity at a time, Q32.128 modulo 2^160.

    Exact only from the pool's last stored observation: the quotient is rounded down once over the whole time
    since then, so an answer of `observe` at some time between would be one unit short now and then. The pool
    stores an observation before each change of its liquidity, so one liquidity holds for all of that time.

    Args:
        observed_at: When the last observation was stored, seconds, uint32.
        observed: What it holds, Q32.128.
        liquidity: The pool's liquidity in range; none counts as one.
        now: The block's timestamp in seconds; the pool takes its lower 32 bits.

    Source: Uniswap/v3-core contracts/libraries/Oracle.sol, transform and observeSingle.
    """
    elapsed = (now - observed_at) & MASK_32
    return (observed + (elapsed << 128) // (liquidity or 1)) & MASK_160


def seconds_inside(tick: Tick, lower: Tick, upper: Tick, total: int, outside_lower: int, outside_upper: int) -> int:
    """Return seconds per liquidity inside [lower, upper), Q32.128 modulo 2^160; both ticks are initialised.

    Args:
        tick: slot0.tick.
        lower: Inclusive lower tick.
        upper: Exclusive upper tick.
        total: The pool's seconds per liquidity now; of no effect out of range.
        outside_lower: ticks(lower).secondsPerLiquidityOutsideX128.
        outside_upper: The same of the upper tick.

    Source: Uniswap/v3-core contracts/UniswapV3Pool.sol, snapshotCumulativesInside.
    """
    if tick < lower:
        return (outside_lower - outside_upper) & MASK_160
    if tick < upper:
        return (total - outside_lower - outside_upper) & MASK_160
    return (outside_upper - outside_lower) & MASK_160


def reward(
    *,
    unclaimed: RawAmount,
    claimed_x128: int,
    start: int,
    end: int,
    liquidity: Liquidity,
    initial: int,
    inside: int,
    now: int,
) -> RawAmount | None:
    """Return what a stake has earned so far, rounded down; None where the contract's own answer reverts.

    Args:
        unclaimed: The incentive's totalRewardUnclaimed.
        claimed_x128: The incentive's totalSecondsClaimedX128, uint160.
        start: The incentive's startTime in seconds.
        end: Its endTime; later than it the same reward is shared by more seconds.
        liquidity: The stake's liquidity.
        initial: The stake's secondsPerLiquidityInsideInitialX128.
        inside: Seconds per liquidity inside its range now, Q32.128.
        now: The block's timestamp in seconds.

    Source: Uniswap/v3-staker 1.0.2 contracts/libraries/RewardMath.sol, computeRewardAmount (Solidity 0.7: sums
    and products wrap), and v3-core contracts/libraries/FullMath.sol, mulDiv.
    """
    if now < start:
        return None
    seconds_x128 = ((inside - initial) & MASK_160) * liquidity & MASK_160
    left_x128 = (((max(end, now) - start) << 128) - claimed_x128) & MASK_256
    if not left_x128:
        return None
    earned = unclaimed * seconds_x128 // left_x128
    return RawAmount(earned) if earned <= MASK_256 else None


def yearly_reward(
    *, unclaimed: RawAmount, claimed_x128: int, start: int, end: int, staked: Liquidity, liquidity: Liquidity
) -> RawAmount:
    """Return what a stake in range would earn in 365 days at the rate of now, rounded down; 0 without a rate.

    The reward that is left is shared by the time that is left unclaimed; of each second in range a stake gets its
    share of the pool's liquidity. Only between an incentive's start and end: later its rewards shrink with time.

    Args:
        unclaimed: The incentive's totalRewardUnclaimed.
        claimed_x128: Its totalSecondsClaimedX128.
        start: Its startTime in seconds.
        end: Its endTime.
        staked: The stake's liquidity.
        liquidity: The pool's liquidity in range.
    """
    left_x128 = ((end - start) << 128) - claimed_x128
    if left_x128 <= 0 or not liquidity:
        return RawAmount(0)
    return RawAmount((unclaimed * staked * YEAR_S << 128) // (liquidity * left_x128))
