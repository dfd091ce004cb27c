"""Seeds that are run with the tests, each with why it is kept.

`python -m tests.chain.soak SEED --rounds N` replays one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["KEPT", "Kept"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A seed, and how many of its rounds are enough."""

    seed: int
    rounds: int
    why: str


KEPT: Final[Mapping[str, Kept]] = {
    "frozen, forked, ended": Kept(5439, 3, "a dozen kinds of faults in three rounds; with the next three all of them"),
    "stopped and killed nodes": Kept(2198, 3, "the node is stopped, killed and reorganised while answers are lost"),
    "rolled back with old heads": Kept(4554, 3, "a rollback, heads out of order, and a server that is killed"),
    "cut off and null": Kept(822, 3, "answers that are none, and endpoints that are away"),
}
