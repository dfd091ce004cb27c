"""Would the simulation tell? Each promise is broken on purpose, and its kept seed has to fail."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import pytest

from .sabotage import SABOTAGES
from .seeds import SEEDS
from .simulation import SimulationFailure, simulate

_SEEDS: Final = 1_200


def test_each_has_a_seed() -> None:
    assert SEEDS.keys() >= SABOTAGES.keys()


@pytest.mark.parametrize("bug", SABOTAGES)
def test_is_noticed(bug: str) -> None:
    with SABOTAGES[bug]():
        # The kept seed is just the fast way: whatever draws differently some day, one of the first will tell.
        for seed in (SEEDS[bug], *range(_SEEDS)):
            with suppress(SimulationFailure):
                simulate(seed)
                continue
            return
    pytest.fail(f"{_SEEDS} seeds see nothing wrong when {bug}")
