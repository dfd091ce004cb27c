"""Nodes that share a past and then go their own ways, and proxies in front of them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from faults.proxy import FaultProxy

from rtserver.demo.lab import Lab
from rtserver.demo.node import AnvilNode
from rtserver.demo.toolchain import Toolchain

# Short enough to be waited for: a chain of 0.2 s blocks has as much.
SILENCE_S = 0.5
PATIENCE_S = 1.5


@asynccontextmanager
async def twin(lab: Lab, toolchain: Toolchain) -> AsyncIterator[AnvilNode]:
    """Run a second node that has the same blocks as the lab's, hashes and all, and goes its own way from now on."""
    with tempfile.TemporaryDirectory(prefix="rtserver-twin-") as folder:
        path = Path(folder) / "state.json"
        await lab.node.dump(path)
        async with AnvilNode(toolchain, load_state=path) as node:
            yield node


@asynccontextmanager
async def proxies(*nodes: AnvilNode) -> AsyncIterator[list[FaultProxy]]:
    """Put a proxy before each node."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FaultProxy(node.http_url, node.ws_url)) for node in nodes]


async def mine_other(node: AnvilNode, count: int = 1) -> dict[str, Any]:
    """Mine blocks that no other node has; return the newest header."""
    # The extra wei makes another state root, so another hash, even in the same second.
    await node.rpc("anvil_setBalance", ["0x" + "5a" * 20, hex(time.monotonic_ns())])
    await node.rpc("anvil_mine", [hex(count)])
    header: dict[str, Any] = await node.rpc("eth_getBlockByNumber", ["latest", False])
    return header


async def head_of(node: AnvilNode) -> dict[str, Any]:
    """Return a node's newest header."""
    header: dict[str, Any] = await node.rpc("eth_getBlockByNumber", ["latest", False])
    return header
