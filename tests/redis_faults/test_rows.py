"""Each row of the README's table of Redis, engines and gateways: what clients are told, and that they become right."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ACCOUNTS, DeployedState

from rtserver.demo.contracts import Contracts
from rtserver.demo.lab import Lab
from rtserver.demo.node import AnvilNode
from rtserver.demo.toolchain import Toolchain

from .stage import OpenStage, Stage
from .table import PLAYS, ROWS, Play

# How old clients hear that the head is: long enough that everything gave up waiting once.
OUTAGE_MS = 4000
CROWD = 40

README = Path(__file__).parents[2] / "README.md"


class Stages:
    """One stage for all rows that are played on the same: its processes start for long. A row that fails spoils it."""

    def __init__(self, toolchain: Toolchain, contracts: Contracts, state: DeployedState) -> None:
        self._toolchain = toolchain
        self._contracts = contracts
        self._state = state
        self._stack: AsyncExitStack | None = None
        self._stage: Stage | None = None
        self._opens: OpenStage[Any] | None = None

    @asynccontextmanager
    async def one(self, opens: OpenStage[Any], folder: Path) -> AsyncIterator[Stage]:
        """Lend the stage that something opens."""
        if self._stage is None or self._opens is not opens:
            await self.close()
            self._stack, self._opens = AsyncExitStack(), opens
            try:
                self._stage = await self._open(self._stack, opens, folder)
            except BaseException:
                await self.close()
                raise
        try:
            await self._stage.rest()
            yield self._stage
        except BaseException:
            await self.close()
            raise

    async def _open(self, stack: AsyncExitStack, opens: OpenStage[Any], folder: Path) -> Stage:
        state = self._state
        node = await stack.enter_async_context(AnvilNode(self._toolchain, accounts=ACCOUNTS, load_state=state.path))
        lab = Lab(node, self._contracts, state.deployment)
        # The deployment's blocks are a second apart but took less: its last one may lie ahead of this node's clock.
        ahead_s = max(incentive.start_time for incentive in state.deployment.incentives) - int(time.time())
        if ahead_s >= 0:
            await node.rpc("evm_increaseTime", [hex(ahead_s + 1)])
        await lab.catch_up()
        stage: Stage = await stack.enter_async_context(opens(lab, folder, outage_ms=OUTAGE_MS, crowd=CROWD))
        return stage

    async def close(self) -> None:
        """End it."""
        stack, self._stack, self._stage = self._stack, None, None
        if stack is not None:
            await stack.aclose()


@pytest.fixture(scope="session")
async def stages(toolchain: Toolchain, contracts: Contracts, deployed_state: DeployedState) -> AsyncIterator[Stages]:
    """What rows are played on."""
    opened = Stages(toolchain, contracts, deployed_state)
    try:
        yield opened
    finally:
        await opened.close()


def test_the_readme_has_these_rows() -> None:
    """Its figures are `python -m bench.redis_faults`; its faults, and what clients see of them, are proved here."""
    section = README.read_text().partition("### When Redis, engines or gateways fail")[2].partition("\n##")[0]
    lines = section.splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert [(each[0], each[1]) for each in cells[1:]] == [(row.fault, row.sees) for row in ROWS]


@pytest.mark.parametrize("play", [pytest.param(play, id=play.row.key) for play in PLAYS])
async def test_row(play: Play, stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> None:
    async with stages.one(play.opens, tmp_path_factory.mktemp("stage")) as stage:
        outcome = await play.row.run(stage)
        play.row.check(outcome)
