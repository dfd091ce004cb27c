"""A kept seed; the minutes are for `python -m tests.roles.chaos`."""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from rtserver.demo.contracts import Contracts
from rtserver.demo.toolchain import Toolchain

from .plan import FAULTS, rounds
from .stage import chaos

# An emptied Redis and the engine in charge, one before the other is back; then a gateway.
_SEED: Final = 735
_ROUNDS: Final = 2


@pytest.mark.timeout(480)  # half a minute, on a machine that has nothing else to do
async def test_everything_is_right_whoever_was_killed(toolchain: Toolchain, contracts: Contracts) -> None:
    account = await chaos(toolchain, contracts, _SEED, seconds=300.0, last_round=_ROUNDS)
    replay = f"python -m tests.roles.chaos {_SEED} --last {_ROUNDS}"
    assert not account.differences, "\n".join([f"replay: {replay}", *account.differences])
    assert account.rounds == _ROUNDS
    assert account.values and account.copies


def test_equal_seeds_are_equal_plans() -> None:
    first, second = (list(itertools.islice(rounds(7), 50)) for _ in range(2))
    assert first == second
    assert list(itertools.islice(rounds(8), 50)) != first


def test_everyone_is_killed_sooner_or_later() -> None:
    planned = {one.name for each in itertools.islice(rounds(1), 100) for one in each.injections}
    assert planned == set(FAULTS)
