"""Seeds that are kept: for each promise, one whose run breaks without it.

They run first, as they are, and once more in `test_sabotage.py` with the bug put back. If the simulation comes
to draw differently, a seed may no longer reveal its bug, and that test has to search: `python -m tests.sim
--find` prints this table anew. A seed that finds a new bug goes in here by a name that says what went wrong.
"""

from collections.abc import Mapping
from typing import Final

__all__ = ["SEEDS"]

# What goes wrong without the promise → the first seed that tells. Five of these were in the product once,
# found by a seed or by reading; `test_found.py` has the smallest case of each.
SEEDS: Final[Mapping[str, int]] = {
    "a change falls between snapshot and registration": 0,
    "a cursor of another block is believed": 4,
    "a cursor of another epoch is believed": 4,
    "a reopened channel keeps its epoch": 0,
    "merged changes forget what was removed": 8,
    "a lag begins one change late": 17,
    "what was held back is overtaken": 0,
    "a full buffer is written to": 1,
    "a laggard's requests are answered at once": 1,
    "heartbeats name no seqs": 44,
    "heartbeats prove nothing": 645,
    "a merged change forgets the rollback": 8,
    "a merged change tells the newest rollback only": 8,
    "a rollback proves nothing": 0,
    "a client applies what doesn't fit": 35,
    "a nested object's lost field is told as a patch": 8,
    "an idle channel stays with the engine": 0,
    "an answer to an earlier watch is taken for a newer one's": 1955,
}
