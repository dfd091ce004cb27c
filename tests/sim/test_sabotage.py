"""Would the simulation tell? Each promise is broken on purpose, and its kept seed has to fail."""

from __future__ import annotations

import pytest

from .sabotage import SABOTAGES
from .seeds import SEEDS
from .simulation import SimulationFailure, simulate


def test_each_has_a_seed() -> None:
    assert SEEDS.keys() >= SABOTAGES.keys()


@pytest.mark.parametrize("bug", SABOTAGES)
def test_is_noticed(bug: str) -> None:
    with SABOTAGES[bug](), pytest.raises(SimulationFailure, match=r"replay: python -m tests\.sim"):
        simulate(SEEDS[bug])
