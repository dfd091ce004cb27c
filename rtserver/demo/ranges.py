"""Where a new position's ticks lie, by the kind of range that it should be. Pure, from a given random state."""

from __future__ import annotations

import enum
import random

from .deployment import Pool

__all__ = ["RangeKind", "choose_range"]


class RangeKind(enum.Enum):
    """What someone minting wants."""

    TIGHT = "tight, around the price"
    WIDE = "wide, around the price"
    ABOVE = "above the price: token0 only"
    BELOW = "below the price: token1 only"
    FULL = "the full range"
    SHARED = "the ticks of someone else's position"


def choose_range(rng: random.Random, pool: Pool, tick: int, kind: RangeKind) -> tuple[int, int]:
    """Return (lower, upper), both usable in the pool and in order.

    Args:
        tick: The pool's current tick.
        kind: Any but SHARED, whose ticks are not chosen but copied.
    """
    spacing, here = pool.tick_spacing, pool.align(tick)
    # In ticks, a hundredth of a percent each: a stable pair's "wide" is another pair's "tight".
    width = 10 if spacing == 1 else 400
    least, most = pool.full_range

    def steps(ticks: float) -> int:
        return max(1, round(ticks / spacing)) * spacing

    match kind:
        case RangeKind.TIGHT:
            lower, upper = here - steps(width * rng.uniform(0.1, 1)), here + steps(width * rng.uniform(0.1, 1))
        case RangeKind.WIDE:
            lower, upper = here - steps(width * rng.uniform(2, 10)), here + steps(width * rng.uniform(2, 10))
        case RangeKind.ABOVE:
            lower = here + steps(width * rng.uniform(0.05, 2))
            upper = lower + steps(width * rng.uniform(0.2, 3))
        case RangeKind.BELOW:
            upper = here - steps(width * rng.uniform(0.05, 2))
            lower = upper - steps(width * rng.uniform(0.2, 3))
        case RangeKind.FULL:
            return least, most
        case RangeKind.SHARED:
            raise ValueError("shared ticks are copied from a position, not chosen")
    return max(least, lower), min(most, upper)
