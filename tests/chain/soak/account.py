"""What a soak did, found and measured, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .memory import Memory

__all__ = ["Account", "spread"]


@dataclass(slots=True)
class Account:
    """What a soak did and found."""

    seed: int
    seconds: float = 0.0
    rounds: int = 0
    blocks: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    values: int = 0
    copies: int = 0
    shown: int = 0
    gone: int = 0
    unknown: int = 0
    unsteady: int = 0
    lives: int = 0
    settled_s: list[float] = field(default_factory=list)
    equal_s: list[float] = field(default_factory=list)
    # Of rounds in which one kind of fault was alone.
    settled_by_fault: dict[str, list[float]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    wrong_rounds: int = 0
    memory: Memory = field(default_factory=Memory)

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        counts = {
            name: dict(sorted(getattr(self, name).items()))
            for name in ("faults", "hits", "refused", "clients", "failures", "actions")
        }
        return {
            "seed": self.seed, "seconds": round(self.seconds, 1), "rounds": self.rounds, "blocks": self.blocks,
            "serverLives": self.lives, "valuesCompared": self.values, "copiesCompared": self.copies,
            "blocksComparedOnTheWay": self.shown, "blocksGone": self.gone,
            "rewardsNotKnownYet": self.unknown, "unsteady": self.unsteady, **counts,
            "settledSeconds": spread(self.settled_s), "equalSeconds": spread(self.equal_s),
            "settledSecondsByFault": {name: spread(each) for name, each in sorted(self.settled_by_fault.items())},
            "differences": self.differences, "rss": self.memory.as_json(),
        }  # fmt: skip


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Return how many seconds there are, and median, 95th percentile and most of them."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "rounds": len(ordered),
        "p50": round(ordered[len(ordered) // 2], 2),
        "p95": round(ordered[int(len(ordered) * 0.95)], 2),
        "max": round(ordered[-1], 2),
    }
