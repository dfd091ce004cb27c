"""Kept seeds; the hours are for `python -m tests.chain.soak`. And that the soak itself sees what is wrong."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from faults.actions import Edit

from rtserver.demo.contracts import Contracts
from rtserver.demo.toolchain import Toolchain

from .memory import Memory, kept_of, slope_of, spark, svg_of
from .plan import FAULTS, rounds
from .seeds import KEPT
from .stage import open_stage, soak


@pytest.mark.timeout(480)  # half a minute each, on a machine that has nothing else to do
@pytest.mark.parametrize("name", KEPT)
async def test_everything_is_right_after_each_round(name: str, toolchain: Toolchain, contracts: Contracts) -> None:
    kept = KEPT[name]
    account = await soak(
        toolchain, contracts, kept.seed, seconds=200.0, first_round=kept.first, last_round=kept.last
    )  # fmt: skip
    replay = f"python -m tests.chain.soak {kept.seed} --first {kept.first} --last {kept.last}"
    assert not account.differences, "\n".join([f"replay: {replay}", *account.differences])
    assert account.rounds == kept.last - kept.first + 1
    # How many blocks were compared on the way is up to the faults: a node that began anew has none of the past to ask.
    assert account.values and account.copies


async def test_a_lie_is_seen(toolchain: Toolchain, contracts: Contracts, tmp_path: Path) -> None:
    """Endpoints that leave out all logs: what they touched is not read again, and the comparison has to tell."""
    async with open_stage(toolchain, contracts, seed=1, folder=tmp_path) as stage:
        assert not (await stage.checker.check()).differences
        for proxy in stage.proxies:
            proxy.add(Edit(lambda logs: []), "eth_getLogs")
        for _ in range(4):
            await stage.chain.step()
        outcome = await stage.checker.check()
        assert [one for one in outcome.differences if "steady: Difference" in one]
        assert [one for one in outcome.differences if "on the way" in one]


async def test_what_never_becomes_right_is_seen(toolchain: Toolchain, contracts: Contracts, tmp_path: Path) -> None:
    async with open_stage(toolchain, contracts, seed=1, folder=tmp_path) as stage:
        for proxy in stage.proxies:
            proxy.freeze()
        await stage.chain.step()
        stage.checker.patience_s = 1.0
        outcome = await stage.checker.check()
        assert len([one for one in outcome.differences if "the chain at" in one]) == len(stage.servers)
        for proxy in stage.proxies:
            proxy.thaw()


def test_equal_seeds_are_equal_plans() -> None:
    first, second = (list(itertools.islice(rounds(7), 50)) for _ in range(2))
    assert first == second
    assert list(itertools.islice(rounds(8), 50)) != first


def test_the_kept_seeds_have_every_fault() -> None:
    planned = {
        injection.name
        for kept in KEPT.values()
        for each in itertools.islice(rounds(kept.seed), kept.first - 1, kept.last)
        for injection in each.injections
    }
    assert planned == set(FAULTS)


def test_growth_is_a_slope_after_the_warm_up() -> None:
    still = Memory([(second, 1000.0 if second >= 300 else second * 3.0) for second in range(0, 601, 2)])
    assert abs(slope_of(still.second_half()).per_minute) < 1e-6
    growing = Memory([(second, 1000.0 + second) for second in range(0, 601, 2)])
    slope = slope_of(growing.second_half())
    assert slope.per_minute == pytest.approx(60.0)
    assert slope.error < 1e-6
    assert growing.as_json()["slopeKibPerMinute"] == 60.0
    assert slope_of([]).per_minute == 0.0


def test_what_is_kept_stands_beside_the_growth() -> None:
    text = (
        "rtserver_memory_blocks 7.17e+05\n"
        "# HELP rtserver_ring_changes Changes\n"
        "rtserver_ring_changes 12.0\n"
        'rtserver_tracked{chain="local",kind="positions"} 84.0\n'
        'rtserver_tracked{chain="other",kind="positions"} 1.0\n'
    )
    assert kept_of(text) == {"blocks": 717_000.0, "positions": 84.0, "ringChanges": 12.0}
    assert kept_of("") == {}
    memory = Memory(kept=[(float(second), {"positions": 80.0, "events": second / 60}) for second in range(0, 601, 10)])
    kept = memory.as_json()["kept"]
    assert kept["positions"] == {"third": 80.0, "fourth": 80.0, "perMinute": 0.0}
    assert kept["events"]["perMinute"] == pytest.approx(1.0)
    assert kept["channels"] == {}


def test_the_curve_is_drawn() -> None:
    assert spark([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert spark([]) == ""
    assert svg_of(Memory([(0.0, 100.0), (60.0, 200.0)]), "memory").startswith("<svg")
