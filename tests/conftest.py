"""What every test may ask for: uvloop, the toolchain, and a chain of its own with everything deployed.

A test's chain costs about 0.2 s: one deployment a session (and worker) is dumped, and each test loads it into
a node of its own, so a test may freeze, kill, reorg or fill its chain as it likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from rtserver.demo.contracts import Contracts, load_contracts
from rtserver.demo.deployment import Deployment
from rtserver.demo.lab import Lab, open_lab
from rtserver.demo.node import AnvilNode
from rtserver.demo.toolchain import Toolchain, install_toolchain

ACCOUNTS = 24


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every async test and fixture on the loop that the server runs on."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass(frozen=True, slots=True)
class DeployedState:
    """A finished deployment as a file that a node can start from."""

    path: Path
    deployment: Deployment


@pytest.fixture(scope="session")
async def toolchain() -> Toolchain:
    """The node and the packages, installed on the first run of this lock file."""
    return await install_toolchain()


@pytest.fixture(scope="session")
async def contracts(toolchain: Toolchain) -> Contracts:
    """ABIs and bytecode."""
    return await load_contracts(toolchain)


@pytest.fixture(scope="session")
async def deployed_state(
    toolchain: Toolchain, contracts: Contracts, tmp_path_factory: pytest.TempPathFactory
) -> DeployedState:
    """The chain right after the deployment, once a session."""
    path = tmp_path_factory.mktemp("chain") / "deployed.json"
    async with open_lab(toolchain, contracts, accounts=ACCOUNTS) as lab:
        await lab.node.dump(path, with_history=False)
        return DeployedState(path, lab.deployment)


@pytest.fixture
async def node(toolchain: Toolchain, deployed_state: DeployedState) -> AsyncIterator[AnvilNode]:
    """A fresh node of this test's own, mining on demand, with the deployment on it."""
    async with AnvilNode(toolchain, accounts=ACCOUNTS, load_state=deployed_state.path) as started:
        yield started


@pytest.fixture
async def lab(node: AnvilNode, contracts: Contracts, deployed_state: DeployedState) -> Lab:
    """The deployed chain of this test's own: everything that can be done on it is a method."""
    opened = Lab(node, contracts, deployed_state.deployment)
    await opened.catch_up()
    return opened
