"""Seeds that once found something, or show a promise at its edge: kept by name, and run first.

Each is also what `test_sabotage.py` runs with the bug put back: a kept seed that no longer reveals its bug
(because the simulation draws differently) fails there, and gets a new number from
`python -m tests.sim --find`.
"""

from collections.abc import Mapping
from typing import Final

__all__ = ["SEEDS"]

# What goes wrong without the promise → the first seed that tells.
SEEDS: Final[Mapping[str, int]] = {}
