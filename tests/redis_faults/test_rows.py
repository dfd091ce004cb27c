"""Each row of the README's table of Redis, engines and gateways: what clients are told, and that they become right."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from conftest import ACCOUNTS, DeployedState

from rtserver.demo.contracts import Contracts
from rtserver.demo.lab import Lab
from rtserver.demo.node import AnvilNode
from rtserver.demo.toolchain import Toolchain

from .row import Row
from .stage import Stage, open_stage
from .table import ROWS

# How old clients hear that the head is: long enough that everything gave up waiting once.
OUTAGE_MS = 4000
CROWD = 40

README = Path(__file__).parents[2] / "README.md"


class Stages:
    """One stage for all rows: starting its processes takes longer than most rows. A row that fails spoils it."""

    def __init__(self, toolchain: Toolchain, contracts: Contracts, state: DeployedState) -> None:
        self._toolchain = toolchain
        self._contracts = contracts
        self._state = state
        self._stack: AsyncExitStack | None = None
        self._stage: Stage | None = None

    @asynccontextmanager
    async def one(self, folder: Path) -> AsyncIterator[Stage]:
        """Lend the stage."""
        if self._stage is None:
            self._stack = AsyncExitStack()
            try:
                self._stage = await self._open(self._stack, folder)
            except BaseException:
                await self.close()
                raise
        try:
            await self._stage.rest()
            yield self._stage
        except BaseException:
            await self.close()
            raise

    async def _open(self, stack: AsyncExitStack, folder: Path) -> Stage:
        state = self._state
        node = await stack.enter_async_context(AnvilNode(self._toolchain, accounts=ACCOUNTS, load_state=state.path))
        lab = Lab(node, self._contracts, state.deployment)
        # The deployment's blocks are a second apart but took less: its last one may lie ahead of this node's clock.
        ahead_s = max(incentive.start_time for incentive in state.deployment.incentives) - int(time.time())
        if ahead_s >= 0:
            await node.rpc("evm_increaseTime", [hex(ahead_s + 1)])
        await lab.catch_up()
        return await stack.enter_async_context(open_stage(lab, folder, outage_ms=OUTAGE_MS, crowd=CROWD))

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


@pytest.mark.parametrize("row", [pytest.param(row, id=row.key) for row in ROWS])
async def test_row(row: Row, stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> None:
    async with stages.one(tmp_path_factory.mktemp("stage")) as stage:
        outcome = await row.run(stage)
        row.check(outcome)
