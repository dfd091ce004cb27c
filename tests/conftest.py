"""What every test may ask for: uvloop, the toolchain, and a chain of its own with everything deployed.

A test's chain costs about 0.2 s: one deployment a session (and worker) is dumped, and each test loads it into
a node of its own, so a test may freeze, kill, reorg or fill its chain as it likes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop
from broker.redis_cluster import RedisNodesServer
from broker.redis_server import RedisServer
from e2e.served import Served
from hypothesis import HealthCheck, settings

from rtserver.demo.contracts import Contracts, load_contracts
from rtserver.demo.deployment import Deployment
from rtserver.demo.lab import Lab, open_lab
from rtserver.demo.market import Market
from rtserver.demo.node import AnvilNode
from rtserver.demo.ports import free_port
from rtserver.demo.server import await_ready, start_server, url_of
from rtserver.demo.settings_file import settings_toml
from rtserver.demo.showcase import mint_exhibits
from rtserver.demo.toolchain import Toolchain, install_toolchain

ACCOUNTS = 24

# How long an example takes is the machine's business, and it may be a busy one.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is kept by default is kept here, not in the home of whoever runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


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
async def redis_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisServer]:
    """A Redis for tests that leave it in peace and use a prefix of their own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    await server.start()
    try:
        yield server
    finally:
        await server.end()


@pytest.fixture(scope="session")
async def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisNodesServer]:
    """Three masters for tests that leave them in peace and use a prefix of their own."""
    nodes = RedisNodesServer(tmp_path_factory.mktemp("cluster"))
    await nodes.start()
    try:
        yield nodes
    finally:
        await nodes.end()


# Not async: a test without a loop that asks for an async fixture would end that fixture's loop for all others.
@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """The node and the packages, installed on the first run of this lock file."""
    return asyncio.run(install_toolchain())


@pytest.fixture(scope="session")
def contracts(toolchain: Toolchain) -> Contracts:
    """ABIs and bytecode."""
    return asyncio.run(load_contracts(toolchain))


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
    # The deployment's blocks are a second apart but took less: its last one may lie ahead of this node's clock.
    began = max(incentive.start_time for incentive in opened.deployment.incentives)
    ahead_s = began - int(time.time())
    if ahead_s >= 0:
        await node.rpc("evm_increaseTime", [hex(ahead_s + 1)])
    await opened.catch_up()
    return opened


@pytest.fixture
async def served(lab: Lab, tmp_path: Path) -> AsyncIterator[Served]:
    """`rtserver serve` on this test's chain; a block a second, swaps in each."""
    exhibits = await mint_exhibits(lab, seed=1)
    market = Market(lab, seed=1)
    await market.steps(20)
    await lab.node.set_block_time(1.0)
    settings = tmp_path / "rtserver.toml"
    text = settings_toml(
        lab.deployment,
        ws_url=lab.node.ws_url,
        http_url=lab.node.http_url,
        owners=[exhibit.owner for exhibit in exhibits],
    )
    # Limits short enough to be waited for.
    text = text.replace("block_time_s = 1.0", "block_time_s = 1.0\nhead_limit_s = 3.0\nrpc_timeout_s = 2.0")
    settings.write_text(text + "\n[limits]\nload_s = 2.0\n")
    port = free_port()
    server = start_server(settings, host="127.0.0.1", port=port, log=tmp_path / "server.log")
    try:
        url = url_of("127.0.0.1", port)
        await await_ready(server, url)
        async with asyncio.TaskGroup() as group:
            trading = group.create_task(market.run(1.0))
            try:
                yield Served(url, lab, server)
            finally:
                trading.cancel()
    finally:
        await server.end(timeout_s=5.0)


@pytest.fixture
def server_url(served: Served) -> str:
    """Where the page is."""
    return served.url
