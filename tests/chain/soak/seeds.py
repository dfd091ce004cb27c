"""Seeds that are run with the tests, each with why it is kept.

`python -m tests.chain.soak SEED --first N --last N` replays one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["KEPT", "Kept"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A seed, and which of its rounds are enough."""

    seed: int
    first: int
    last: int
    why: str


KEPT: Final[Mapping[str, Kept]] = {
    "frozen, forked, ended": Kept(5439, 1, 3, "a dozen kinds of faults in three rounds; all 32 are in these seeds"),
    "stopped and killed nodes": Kept(2198, 1, 3, "the node is stopped, killed and reorganised while answers are lost"),
    "rolled back with old heads": Kept(4554, 1, 3, "a rollback, heads out of order, and a server that is killed"),
    "lost while written to": Kept(61, 8, 8, "left an error unread where a socket broke under a request: chain/rpc.py"),
    "cut off and null": Kept(822, 1, 3, "answers that are none, and endpoints that are away"),
}
