"""The simulation itself: kept seeds, then as many new ones as the environment asks for."""

from __future__ import annotations

import os
from collections import Counter
from typing import Final

import pytest

from .seeds import SEEDS
from .simulation import simulate

# RTSERVER_SIM_SEEDS=10000 takes three minutes; the default about twenty seconds of one core.
_SEEDS: Final = int(os.environ.get("RTSERVER_SIM_SEEDS", "1200"))
_FIRST: Final = int(os.environ.get("RTSERVER_SIM_FIRST", "0"))
# So that several workers share the work, and a failure names its neighbourhood.
_CHUNKS: Final = 8


@pytest.mark.parametrize("seed", sorted(set(SEEDS.values())))
def test_kept_seed(seed: int) -> None:
    simulate(seed)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_seeds(chunk: int) -> None:
    events: Counter[str] = Counter()
    faults: Counter[tuple[str, str]] = Counter()
    injected = 0
    for seed in range(_FIRST + _SEEDS * chunk // _CHUNKS, _FIRST + _SEEDS * (chunk + 1) // _CHUNKS):
        outcome = simulate(seed)
        events += outcome.events
        faults += outcome.faults
        injected += outcome.injected.total()
    assert faults.total() == injected, "an accident is noticed, or nothing came of it: none is forgotten"
    if _SEEDS >= 100 * _CHUNKS:
        # A simulation in which nothing happens proves nothing.
        for event in ("rollbacks", "rollbacks to the same block", "caught up", "closed: slow", "closed: no_pong"):
            assert events[event], f"no seed saw this: {event}"
        ways = {how for _, how in faults}
        assert ways >= {"gap", "checksum", "unreadable"}, f"accidents were noticed only by {ways}"
