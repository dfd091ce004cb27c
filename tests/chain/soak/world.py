"""The chain of a soak: a node behind a gate, a market on it, and what can be done to it, one thing at a time."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from rtserver.demo.contracts import Contracts
from rtserver.demo.deploy import deploy
from rtserver.demo.deployment import Deployment
from rtserver.demo.gate import Gate
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market, MarketConfig
from rtserver.demo.node import AnvilNode
from rtserver.demo.ports import free_port
from rtserver.demo.rpc import JsonRpc, NodeUnreachable, RpcError
from rtserver.demo.showcase import mint_exhibits
from rtserver.demo.toolchain import Toolchain

__all__ = ["GatedNode", "SoakChain", "open_chain"]

ACCOUNTS: Final = 15
_CHANGES: Final = ("evm_", "anvil_")
# The gate mines at a pace of its own, which nobody here wants: blocks come when the soak says so.
_NEVER_S: Final = 1e9
# A reorganisation needs the state it goes back to. 64 blocks, and some that another took away before.
_HISTORY_BLOCKS: Final = 160
_WARM_UP_BLOCKS: Final = 70


class GatedNode(AnvilNode):
    """A node whose chain changes through a gate only, so that nothing is read meanwhile."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gated: JsonRpc | None = None

    @asynccontextmanager
    async def gate(self) -> AsyncIterator[Gate]:
        """Open the gate that the server's requests have to come through, too."""
        async with Gate(self, port=free_port(), block_time_s=_NEVER_S) as gate, JsonRpc(gate.http_url) as client:
            self._gated = client
            try:
                yield gate
            finally:
                self._gated = None

    async def rpc(self, method: str, params: Sequence[object] = ()) -> Any:
        """Return the result of one call; one that changes the chain waits for its turn."""
        if self._gated is not None and method.startswith(_CHANGES):
            return await self._gated.call(method, params)
        return await super().rpc(method, params)

    async def save(self) -> None:
        """Write the chain down, without the states of past blocks: a `restart` after a `kill` begins with it."""
        path = self._own_folder() / "saved.json"
        await self.dump(path, with_history=False)
        self._load_state = path


class SoakChain:
    """A chain with a market.

    `floor` is the block under which nothing may be undone or asked: a node that began with a saved state has none of
    older blocks. (With the states of past blocks, anvil 1.7.1 builds a reorganisation of such blocks on nothing: all
    contracts are gone.)
    """

    def __init__(self, toolchain: Toolchain, lab: Lab, node: GatedNode, gate: Gate, market: Market) -> None:
        self.lab = lab
        self.node = node
        self.gate = gate
        self.market = market
        self.floor = 0
        self.refused: Counter[str] = Counter()
        # One change at a time: a block with its transactions is one as well.
        self._turn = asyncio.Lock()
        # Whoever stops or kills the process.
        self._process = asyncio.Lock()
        self._toolchain = toolchain

    async def head(self) -> dict[str, Any]:
        """Return the newest header."""
        header: dict[str, Any] = await self.node.rpc("eth_getBlockByNumber", ["latest", False])
        return header

    async def step(self) -> None:
        """Mine a block with trades. A node that is away for now mines none."""
        async with self._turn:
            try:
                await self.market.step()
            except (NodeUnreachable, RpcError) as error:
                self.refused[f"step: {type(error).__name__}"] += 1

    @asynccontextmanager
    async def trading(self, block_time_s: float) -> AsyncIterator[None]:
        """Mine at a pace meanwhile; the last block is finished, as what a node was told to do it does."""
        is_over = asyncio.Event()

        async def trade() -> None:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(block_time_s):
                        await is_over.wait()
                if is_over.is_set():
                    return
                await self.step()

        async with asyncio.TaskGroup() as group:
            group.create_task(trade())
            try:
                yield
            finally:
                is_over.set()

    async def _change(self, method: str, params: Sequence[object]) -> None:
        """Change the chain between two blocks; what waits to be mined is dropped, or its nonces would be of blocks
        that are gone."""
        async with self._turn:
            try:
                await self.node.rpc("anvil_dropAllTransactions")
                await self.node.rpc(method, params)
            except (NodeUnreachable, RpcError) as error:
                self.refused[f"{method}: {error}"] += 1

    async def reorg(self, depth: int) -> None:
        """Replace the newest blocks by empty ones."""
        if (depth := await self._depth(depth)) > 0:
            await self._change("anvil_reorg", [depth, []])

    async def roll_back(self, depth: int) -> None:
        """Take the newest blocks away: the chain is lower for a while."""
        if (depth := await self._depth(depth)) > 0:
            await self._change("anvil_rollback", [depth])

    async def _depth(self, wanted: int) -> int:
        return min(wanted, await self._number() - self.floor)

    async def _number(self) -> int:
        return int((await self.head())["number"], 16)

    async def jump(self, seconds: int) -> None:
        """Have the next block's clock so many seconds later, and every clock after that."""
        await self._change("evm_increaseTime", [hex(seconds)])

    async def stop_for(self, seconds: float) -> None:
        """Freeze the process."""
        async with self._process:
            self.node.freeze()
            try:
                await asyncio.sleep(seconds)
            finally:
                self.node.thaw()

    async def kill_for(self, seconds: float, lost: int) -> None:
        """Kill the process and start it again with the state that it had `lost` blocks before."""
        async with self._process:
            async with self._turn:
                await self.node.save()
                kept = await self._number()
            for _ in range(lost):
                await self.step()
            async with self._turn:
                await self.node.kill()
                try:
                    await asyncio.sleep(seconds)
                finally:
                    await self.node.restart()
                    self.floor = kept

    @asynccontextmanager
    async def twin(self) -> AsyncIterator[SoakChain]:
        """Run a second node that has the same blocks and goes its own way from now on, with trades of its own."""
        with tempfile.TemporaryDirectory(prefix="rtserver-twin-") as folder:
            path = Path(folder) / "state.json"
            async with self._process, self._turn:
                await self.node.dump(path, with_history=False)
            node = GatedNode(self._toolchain, accounts=ACCOUNTS, load_state=path, history_blocks=_HISTORY_BLOCKS)
            async with node, node.gate() as gate:
                lab = Lab(node, self.lab.contracts, self.lab.deployment)
                await lab.catch_up()
                # Other trades than ours, even in the same second.
                market = Market(lab, seed=time.monotonic_ns(), config=self.market.config)
                yield SoakChain(self._toolchain, lab, node, gate, market)


@asynccontextmanager
async def open_chain(toolchain: Toolchain, contracts: Contracts, *, seed: int) -> AsyncIterator[SoakChain]:
    """Deploy everything, let the market run for a while, and put the gate before the node."""
    node = GatedNode(toolchain, accounts=ACCOUNTS, history_blocks=_HISTORY_BLOCKS)
    async with node:
        deployment: Deployment = await deploy(node, contracts)
        lab = Lab(node, contracts, deployment)
        ahead_s = max(incentive.start_time for incentive in deployment.incentives) - int(time.time())
        if ahead_s >= 0:
            await node.rpc("evm_increaseTime", [hex(ahead_s + 1)])
        await lab.catch_up()
        exhibits = await mint_exhibits(lab, seed=seed)
        kept = frozenset(token_id for exhibit in exhibits for token_id in exhibit.token_ids[:1])
        market = Market(lab, seed=seed, config=MarketConfig(max_nfts=90, kept=kept))
        async with node.gate() as gate:
            chain = SoakChain(toolchain, lab, node, gate, market)
            chain.floor = lab.head.number
            await market.steps(_WARM_UP_BLOCKS)
            yield chain
