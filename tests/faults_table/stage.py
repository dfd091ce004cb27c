"""What a row of the table plays on: a chain, fault proxies before its node, the server as a process, one client.

A row breaks something between `begin` and `over`, and ends with `right`: the client's copy is every value that the
chain itself answers at its head, by the comparison that `rtserver verify` makes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from chain.following import twin
from e2e.restarting import read_json
from faults.proxy import FaultProxy
from faults.relay import Relay

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.demo.node import AnvilNode
from rtserver.demo.ports import free_port
from rtserver.demo.process import Child
from rtserver.demo.rpc import RpcError
from rtserver.demo.server import start_server, url_of
from rtserver.demo.settings_file import settings_toml
from rtserver.demo.toolchain import Toolchain

from .against import AgainstChain
from .watcher import Seen, Watcher, watching

__all__ = ["Outcome", "Setup", "Stage", "nothing", "open_stage"]

_OWNERS = 6
_BEFORE_BLOCKS = 25
# What has to be noticed is noticed within this, on a busy machine too.
_PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a row needs of its stage.

    Args:
        endpoints: Proxies before the node; each is a ws and an http endpoint.
        settings: More lines of the chain's section.
        limits: Lines of the section of limits.
        more: More sections.
    """

    endpoints: int = 1
    settings: str = ""
    limits: str = ""
    more: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a fault.

    Args:
        seen: What the client was told since it began.
        right_s: From the end of the fault, or the newest block if that came later, until the client was right.
        calls: RPC calls from the beginning of the fault until then.
        blocks: Blocks that were mined meanwhile.
    """

    seen: Seen
    right_s: float
    calls: int
    blocks: int


class Stage:
    """See the module's text. `outage_ms` is how old the client hears that the head is before an outage ends."""

    def __init__(
        self, lab: Lab, toolchain: Toolchain, proxies: Sequence[FaultProxy], folder: Path, setup: Setup, outage_ms: int
    ) -> None:
        self.lab = lab
        self.toolchain = toolchain
        self.proxies = proxies
        self.outage_ms = outage_ms
        self.market = Market(lab, seed=7)
        self.store = folder / "store.sqlite3"
        self.settings = folder / "rtserver.toml"
        self.log = folder / "server.log"
        self.port = free_port()
        self.url = url_of("127.0.0.1", self.port)
        self.server: Child | None = None
        self.relay: Relay
        # A node on another fork, where the row has one.
        self.fork: AnvilNode | None = None
        # For what a row opens and leaves open.
        self.stack: AsyncExitStack
        self.watcher: Watcher
        self._setup = setup
        self._against = AgainstChain(lab)
        self._since = time.monotonic()
        self._calls = 0
        self._blocks = 0
        self._slowest_s = 0.0

    # --- the parts --------------------------------------------------------------------------------------

    @property
    def first(self) -> FaultProxy:
        """The endpoint that is asked first."""
        return self.proxies[0]

    @property
    def second(self) -> FaultProxy:
        return self.proxies[1]

    @property
    def channels(self) -> list[str]:
        """What the client watches: the head, some owners, a pool."""
        chain = self.lab.deployment.chain_id
        owners = [f"owner:{chain}:{owner}" for owner in self.lab.owners[:_OWNERS]]
        return [f"head:{chain}", *owners, f"pool:{chain}:{self.lab.pools[0].address}"]

    @asynccontextmanager
    async def twin(self) -> AsyncIterator[AnvilNode]:
        """Run a node that has the chain as it is now, and goes its own way."""
        async with twin(self.lab, self.toolchain) as node:
            yield node

    def write_settings(self) -> None:
        """Write the server's file."""
        text = settings_toml(
            self.lab.deployment, ws_url=self.first.ws_url, http_url=self.first.http_url, store=self.store
        )
        urls = ", ".join(f'"{url}"' for proxy in self.proxies for url in (proxy.ws_url, proxy.http_url))
        setup = self._setup
        text = text.replace(f'"{self.first.ws_url}", "{self.first.http_url}"', urls)
        text = text.replace("block_time_s = 1.0", f"block_time_s = 1.0\n{setup.settings}")
        text = text.replace("[store]", "[store]\nevery_s = 0.5")
        self.settings.write_text(f"{text}\n[limits]\nheartbeat_s = 1.0\n{setup.limits}\n{setup.more}\n")

    def append_settings(self, text: str) -> None:
        """Add to the server's file."""
        with self.settings.open("a") as file:
            file.write(text)

    # --- the server -------------------------------------------------------------------------------------

    def launch(self) -> Child:
        """Start the process."""
        self.server = start_server(self.settings, host="127.0.0.1", port=self.port, log=self.log)
        return self.server

    async def stop(self) -> None:
        """End the process in order."""
        assert self.server is not None
        await self.server.end(timeout_s=10.0)
        assert self.server.returncode == 0, self.server.said()

    def kill(self) -> None:
        """End the process as a crash does."""
        assert self.server is not None
        self.server.kill_now()

    async def metric(self, name: str) -> float:
        """Return a metric of the first chain, summed over its other labels."""
        return await self._metric(f'{name}{{chain="local"')

    async def connections(self) -> float:
        """Return how many client sockets the server has open."""
        return await self._metric("rtserver_connections ")

    async def _metric(self, start: str) -> float:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    async def rises(self, name: str, above: float) -> None:
        """Wait until a metric is over a value."""
        async with asyncio.timeout(_PATIENCE_S):
            while await self.metric(name) <= above:
                await asyncio.sleep(0.02)

    async def kept(self) -> None:
        """Wait until the head is in the store."""
        await self.rises("rtserver_store_head_number", self.lab.head.number - 1)

    async def start(self) -> None:
        """Start the process and wait until the chain is served; others beside it may be away."""
        server = self.launch()
        async with asyncio.timeout(_PATIENCE_S):
            while not (await self._chain()).get("ready"):
                assert server.returncode is None, server.said()
                await asyncio.sleep(0.02)

    async def announced(self) -> None:
        """Wait until every endpoint's subscription is open."""
        async with asyncio.timeout(_PATIENCE_S):
            while (await self._chain()).get("subscriptions") != len(self.proxies):
                await asyncio.sleep(0.02)

    async def rested(self) -> None:
        """Wait until no endpoint is left alone for having been too busy."""
        async with asyncio.timeout(_PATIENCE_S):
            while any(endpoint["restsMs"] for endpoint in (await self._chain())["endpoints"]):
                await asyncio.sleep(0.05)

    async def _chain(self) -> dict[str, Any]:
        """Return what the server reports of the chain; nothing while it doesn't answer."""
        try:
            return dict((await read_json(f"{self.url}/health/ready"))["chains"][0])
        except aiohttp.ClientError:
            return {}

    # --- a row's steps ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Count from here: something breaks now."""
        self.watcher.begin()
        self._calls = self._asked()
        self._blocks = 0
        self._slowest_s = 0.0
        self.over()

    def over(self) -> None:
        """Take the time from here: what was broken is whole."""
        self._since = time.monotonic()

    async def stale(self) -> None:
        """Wait until the client has heard how old the head is: an outage that it can see."""
        async with asyncio.timeout(_PATIENCE_S):
            await self.watcher.until(lambda: self.watcher.seen.oldest_ms >= self.outage_ms)

    async def blocks(self, count: int = 1) -> None:
        """Mine blocks, with trades in each."""
        for _ in range(count):
            await self.lab.catch_up()
            for tx in self.market.decide():
                # A reorganisation may have taken away what it is about.
                with suppress(RpcError):
                    await self.lab.send(tx)
            self._since = time.monotonic()
            await self.lab.mine(allow_failures=True)
            self._blocks += 1

    async def empty(self, count: int) -> None:
        """Mine blocks with nothing in them."""
        if count:
            await self.lab.mine(count)
        self._blocks += count
        self._since = time.monotonic()

    async def each(self, count: int) -> Outcome:
        """Mine blocks, each as soon as the client is right about the one before; the time is that of the slowest."""
        for _ in range(count):
            await self.blocks()
            outcome = await self.right()
        return outcome

    async def right(self) -> Outcome:
        """Wait until the client's copy is the chain's; fail if it was wrong where it had to be exact."""
        await self.lab.catch_up()
        watcher, head = self.watcher, self.lab.head
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    await watcher.until(lambda: watcher.is_whole and watcher.head == head.hash)
                    changed_at, is_exact = watcher.changed_at, watcher.is_exact
                    found = await self._against.differences(watcher.client.states)
                    if watcher.changed_at != changed_at:
                        continue
                    if not found:
                        break
                    assert not is_exact, "\n".join(map(str, found[:10]))
                    await watcher.news()
        except TimeoutError:
            held = watcher.head or "no head"
            raise AssertionError(f"not at {head.number} {head.hash} but at {held}: {self._said()}") from None
        assert not watcher.seen.mismatches
        self._slowest_s = max(self._slowest_s, changed_at - self._since)
        return Outcome(
            seen=replace(watcher.seen), right_s=self._slowest_s, calls=self._asked() - self._calls, blocks=self._blocks
        )

    def _asked(self) -> int:
        return sum(proxy.methods.total() for proxy in self.proxies)

    def _said(self) -> str:
        return "no process" if self.server is None else self.server.said()

    async def close(self) -> None:
        """End what this object opened."""
        await self._against.close()
        if self.server is not None:
            await self.server.end(timeout_s=10.0)


async def nothing(stage: Stage) -> None:
    """Prepare nothing."""


@asynccontextmanager
async def open_stage(
    lab: Lab,
    toolchain: Toolchain,
    folder: Path,
    setup: Setup,
    *,
    outage_ms: int,
    prepare: Callable[[Stage], Awaitable[None]] = nothing,
) -> AsyncIterator[Stage]:
    """Start the server on a chain that was traded on, and a client that is right.

    Args:
        lab: The chain, as its deployment left it.
        toolchain: For more nodes.
        folder: For files.
        setup: What the row needs.
        outage_ms: See `Stage`.
        prepare: Awaited before the server starts: for faults that are there from the beginning.
    """
    async with AsyncExitStack() as stack:
        urls = (lab.node.http_url, lab.node.ws_url)
        proxies = [await stack.enter_async_context(FaultProxy(*urls)) for _ in range(setup.endpoints)]
        stage = Stage(lab, toolchain, proxies, folder, setup, outage_ms)
        stage.stack = stack
        stack.push_async_callback(stage.close)
        await stage.market.steps(_BEFORE_BLOCKS)
        await asyncio.to_thread(stage.write_settings)
        await prepare(stage)
        await stage.start()
        stage.relay = await stack.enter_async_context(Relay(stage.port))
        url = f"ws://127.0.0.1:{stage.relay.port}/ws"
        stage.watcher = await stack.enter_async_context(watching(url, lab.deployment.chain_id, stage.channels))
        await stage.announced()
        await stage.blocks()
        await stage.right()
        yield stage
