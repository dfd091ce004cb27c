"""A stage with a real Redis Cluster: three masters, and a replica of the one that has the chain's slot."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from broker.redis_cluster import RedisNodesServer, is_in_step
from broker.redis_server import RedisServer
from faults_table.watcher import SharedWatcher
from roles.processes import Deployed

from rtserver.demo.lab import Lab
from rtserver.domain.shards import shard_of

from .stage import Stage, played

__all__ = ["NODE_TIMEOUT_S", "OnCluster", "cluster"]

# After such a silence nodes take one of them for dead. Redis' own default is 15 s.
NODE_TIMEOUT_S: Final = 1
# Of three, the one that has the demo chain's slot; the slots of two shards are on the two others.
_OURS: Final = 2
_SHARDS: Final = 2


class OnCluster(Stage):
    """See Stage; `nodes` are the Cluster's. One engine stands by for the other, or they share the chain."""

    WATCHER = SharedWatcher

    nodes: RedisNodesServer
    _is_shared = False

    @property
    def key(self) -> str:
        """Return a key in the chain's slot."""
        return f"rtserver:{{{self.chain}}}:owner"

    @property
    def shard(self) -> int:
        """Return the shard that a row breaks: not the one that tells the chain's head."""
        return 1 - shard_of(f"head:{self.chain}", _SHARDS)

    @property
    def shard_key(self) -> str:
        """Return a key in that shard's slot."""
        return f"rtserver:{{{self.chain}:{self.shard}/{_SHARDS}}}:owner"

    def of_shard(self, names: Iterable[str]) -> list[str]:
        """Return which channels, spelt as by the server, are that shard's."""
        return [name for name in names if shard_of(name, _SHARDS) == self.shard]

    async def replica(self) -> RedisServer:
        """Return the one replica, once it has all that its master has."""
        async with asyncio.timeout(60):
            while True:
                for node in self.nodes.nodes:
                    if await is_in_step(node):
                        return node
                await asyncio.sleep(0.02)

    async def others(self, node: RedisServer) -> list[RedisServer]:
        """Return the masters beside one."""
        replica = await self.replica()
        return [one for one in self.nodes.nodes if one not in (node, replica)]

    async def is_queueing(self) -> bool:
        """Return whether an engine has steps that it could not write yet."""
        return any([(await engine.chain()).get("queuedSteps", 0) for engine in self.engines])

    async def share(self, is_shared: bool) -> None:
        """Have the engines share the chain by its channels, or be one and its standby; wait until all is right."""
        if is_shared == self._is_shared:
            return
        await asyncio.gather(*(engine.child.end(timeout_s=6.0) for engine in self.engines))
        self.forget_engines()
        self._is_shared = is_shared
        for shard in range(_SHARDS):
            self.start_engine(*(("--shard", f"{shard}/{_SHARDS}") if is_shared else ()))
        await self.rest()

    async def engines_are_there(self) -> None:
        """Wait until each engine leads its shard, or one stands by for the other."""
        if self._is_shared:
            await asyncio.gather(*(self.leads(engine) for engine in self.engines))
        else:
            await super().engines_are_there()

    async def close(self) -> None:
        """End what this object opened."""
        await super().close()
        # A row that failed may have left some frozen, and what is frozen hears nothing.
        for node in self.nodes.nodes:
            node.thaw()


@asynccontextmanager
async def cluster(lab: Lab, folder: Path, *, outage_ms: int, crowd: int) -> AsyncIterator[OnCluster]:
    """Start everything, with one engine that stands by for the other; see OpenStage."""
    own = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="cluster-", dir=folder))
    nodes = RedisNodesServer(own, replicas_of=[_OURS], timeout_ms=1000 * NODE_TIMEOUT_S, full_coverage="yes")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(nodes.end)
        await nodes.start()
        deployed = Deployed(lab, nodes.nodes[0], own, redis_url=nodes.url)
        stage = OnCluster(lab, deployed, outage_ms=outage_ms, crowd=crowd)
        stage.nodes = nodes
        yield await stack.enter_async_context(played(stage, deployed))
