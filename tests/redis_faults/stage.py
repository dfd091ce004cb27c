"""What a row of the table plays on: a chain, two engines, two gateways, a client at each, and Redis between them.

One stage is used by row after row: each begins on one where everything is right, and leaves it so. "Right" is when
both clients' copies are every value that the chain itself answers at its head, as `rtserver verify` compares. Which
Redis it is that may be broken, one server or a Cluster, is for those stages that are made of this one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Container
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

import aiohttp
from faults_table.against import AgainstChain
from faults_table.watcher import Seen, Watcher, watching
from roles.processes import Deployed, Process

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.demo.rpc import RpcError
from rtserver.tools.compare import Difference

__all__ = ["OpenStage", "Outcome", "Stage", "played"]

S = TypeVar("S", bound="Stage")
S_co = TypeVar("S_co", bound="Stage", covariant=True)

_OWNERS = 6
_BEFORE_BLOCKS = 25
# What has to be noticed is noticed within this, on a busy machine too.
_PATIENCE_S = 90.0
# All clients come from one address, and many of them at once.
_LIMITS = """
[limits]
heartbeat_s = 1.0
connections_per_minute = 1000000
connections_per_ip = 100000
loads_per_minute = 1000000
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a fault.

    Args:
        seen: What each client was told since it began; the first one's gateway is the one that a row breaks.
        right_s: From the end of the fault, or the newest block if that came later, until the last client was right.
            Where the fault stays, from its beginning.
        blocks: Blocks that were mined meanwhile.
        counts: What else there is to say in figures.
    """

    seen: tuple[Seen, ...]
    right_s: float
    blocks: int
    counts: dict[str, float] = field(default_factory=dict)


class Stage:
    """See the module's text. `outage_ms` is how old clients hear that the head is before an outage ends."""

    WATCHER: ClassVar[type[Watcher]] = Watcher

    def __init__(self, lab: Lab, deployed: Deployed, *, outage_ms: int, crowd: int) -> None:
        self.lab = lab
        self.outage_ms = outage_ms
        # How many clients a gateway is killed with.
        self.crowd = crowd
        self.market = Market(lab, seed=7)
        self.gateways: list[Process] = []
        self.watchers: list[Watcher] = []
        self.folder = deployed.folder
        self._deployed = deployed
        self._against = AgainstChain(lab)
        self._since = time.monotonic()
        self._blocks = 0
        self._slowest_s = 0.0

    # --- the parts --------------------------------------------------------------------------------------

    @property
    def chain(self) -> int:
        return self.lab.deployment.chain_id

    @property
    def channels(self) -> list[str]:
        """What each client watches: the head, some owners, a pool."""
        owners = [f"owner:{self.chain}:{owner}" for owner in self.lab.owners[:_OWNERS]]
        return [f"head:{self.chain}", *owners, f"pool:{self.chain}:{self.lab.pools[0].address}"]

    async def leader(self) -> Process:
        """Return the engine in charge, once there is one."""
        return await self._deployed.engine()

    @property
    def engines(self) -> list[Process]:
        """Return both engines."""
        return [one for one in self._deployed.processes if one.role == "engine"]

    def start_engine(self, *options: str) -> Process:
        """Start one more engine."""
        return self._deployed.start("engine", *options)

    def forget_engines(self) -> None:
        """Let go of those that were ended."""
        self._deployed.processes = [one for one in self._deployed.processes if one.role != "engine"]

    async def standby(self) -> Process:
        """Return the other engine, once it follows the chain."""
        leader = await self.leader()
        (other,) = (one for one in self.engines if one is not leader)
        async with asyncio.timeout(_PATIENCE_S):
            while not (await other.chain()).get("ready"):
                await asyncio.sleep(0.05)
        return other

    async def metric(self, process: Process, name: str) -> float:
        """Return a metric of a process, summed over its labels."""
        async with aiohttp.ClientSession() as session, session.get(f"{process.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    async def lives(self, gateway: Process) -> None:
        """Wait until a gateway follows its engine, however old the head is."""
        async with asyncio.timeout(_PATIENCE_S):
            while not (await gateway.chain()).get("live"):
                await asyncio.sleep(0.05)

    async def leads(self, engine: Process) -> None:
        """Wait until an engine is in charge of all that it is there for."""
        async with asyncio.timeout(_PATIENCE_S):
            while not (await engine.chain()).get("inCharge"):
                await asyncio.sleep(0.05)

    async def rises(self, process: Process, name: str, above: float) -> None:
        """Wait until a metric is over a value."""
        async with asyncio.timeout(_PATIENCE_S):
            while await self.metric(process, name) <= above:
                await asyncio.sleep(0.02)

    async def start(self) -> None:
        """Start all processes; the engine that is started first is in charge."""
        await self.market.steps(_BEFORE_BLOCKS)
        first = self.start_engine()
        self.gateways = [self._deployed.start("gateway") for _ in range(2)]
        await first.ready()
        await self.leader()
        self.start_engine()
        await asyncio.gather(*(gateway.ready() for gateway in self.gateways), self.engines_are_there())

    async def engines_are_there(self) -> None:
        """Wait until each engine does what it is there for."""
        await self.standby()

    # --- a row's steps ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Count from here: something breaks now."""
        for watcher in self.watchers:
            watcher.begin()
        self._blocks = 0
        self._slowest_s = 0.0
        self.over()

    def over(self) -> None:
        """Take the time from here: what was broken is whole."""
        self._since = time.monotonic()

    async def blocks(self, count: int = 1, *, is_timed: bool = True) -> None:
        """Mine blocks, with trades in each; each is what the time is taken from, if `is_timed`."""
        for _ in range(count):
            await self.lab.catch_up()
            for tx in self.market.decide():
                with suppress(RpcError):
                    await self.lab.send(tx)
            if is_timed:
                self.over()
            await self.lab.mine(allow_failures=True)
            self._blocks += 1

    async def empty(self, count: int, at: Watcher) -> None:
        """Mine blocks without trades, each as soon as a client has the one before: each is a step of its own."""
        for _ in range(count):
            await self.lab.mine()
            async with asyncio.timeout(_PATIENCE_S):
                await at.until(lambda: at.head == self.lab.head.hash)
            self._blocks += 1
        self.over()

    async def stale(self) -> None:
        """Wait until both clients have heard how old the head is. REST serves the same, with its age."""
        await self.aged(self.outage_ms)
        for gateway, watcher in zip(self.gateways, self.watchers, strict=True):
            await self.serves(gateway, watcher, self.channels[1], watcher.head, self.outage_ms)

    async def aged(self, least_ms: int) -> None:
        """Wait until both clients have heard that the head, or what one of the chain's engines says, is so old."""
        async with asyncio.timeout(_PATIENCE_S):
            for watcher in self.watchers:
                await watcher.until(lambda watcher=watcher: watcher.seen.oldest_ms >= least_ms)  # type: ignore[misc]

    async def serves(self, gateway: Process, watcher: Watcher, channel: str, block_hash: str, least_ms: int) -> None:
        """Assert that REST serves what a client holds of a channel, as of a block that is so old, and says so."""
        where = f"{gateway.url}/api/v1/snapshot"
        async with aiohttp.ClientSession() as session, session.get(where, params={"channel": channel}) as response:
            answer = await response.json()
            assert response.status == 200, answer
            assert int(response.headers["Age"]) >= least_ms // 1000
        assert answer["block"]["hash"] == block_hash, "not of the block that clients see"
        assert answer["ageMs"] >= least_ms
        assert answer["state"] == watcher.client.states[answer["channel"]]

    async def differences(self, watcher: Watcher, but: Container[str] = ()) -> list[Difference]:
        """Return what a client's copies say that the chain doesn't, at the lab's head; of all channels but some."""
        states = {name: state for name, state in watcher.client.states.items() if name not in but}
        return await self._against.differences(states, least=10 if but else 100)

    @property
    def waited_s(self) -> float:
        """Return the seconds since the time is taken."""
        return time.monotonic() - self._since

    async def right(self) -> Outcome:
        """Wait until both clients' copies are the chain's; fail if one was wrong where it had to be exact."""
        await self.lab.catch_up()
        for watcher, gateway in zip(self.watchers, self.gateways, strict=True):
            await self._right(watcher, gateway)
        seen = tuple(replace(watcher.seen) for watcher in self.watchers)
        return Outcome(seen=seen, right_s=self._slowest_s, blocks=self._blocks)

    async def _right(self, watcher: Watcher, gateway: Process) -> None:
        head = self.lab.head
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    await watcher.until(lambda: watcher.is_whole and watcher.head == head.hash)
                    changed_at, is_exact = watcher.changed_at, watcher.is_exact
                    found = await self.differences(watcher)
                    if watcher.changed_at != changed_at:
                        continue
                    if not found:
                        break
                    assert not is_exact, "\n".join(map(str, found[:10]))
                    await watcher.news()
        except TimeoutError:
            held = watcher.head or "no head"
            said = f"not at {head.number} {head.hash} but at {held}: {await gateway.chain()} {gateway.child.said()}"
            raise AssertionError(said) from None
        assert not watcher.seen.mismatches
        self._slowest_s = max(self._slowest_s, changed_at - self._since)

    async def rest(self) -> None:
        """Wait until everything is as a row finds it: both engines and gateways there, both clients right."""
        await self.engines_are_there()
        await self.blocks()
        await self.right()

    async def close(self) -> None:
        """End what this object opened."""
        await self._against.close()


class OpenStage(Protocol[S_co]):
    """Starts everything on a chain as its deployment left it, and waits until both clients are right.

    `folder` is for files; `outage_ms` as for `Stage`; `crowd` is how many clients a gateway is killed with.
    """

    def __call__(self, lab: Lab, folder: Path, *, outage_ms: int, crowd: int) -> AbstractAsyncContextManager[S_co]: ...


@asynccontextmanager
async def played(stage: S, deployed: Deployed) -> AsyncIterator[S]:
    """Start the processes of a stage and its clients, and wait until these are right; all of it is ended.

    The Redis that they find by their settings is there, and outlives them.
    """
    async with AsyncExitStack() as stack:
        with deployed.settings.open("a") as file:
            file.write(_LIMITS)
        stack.push_async_callback(deployed.end)
        stack.push_async_callback(stage.close)
        await stage.start()
        for gateway in stage.gateways:
            opened = watching(gateway.ws_url, stage.chain, stage.channels, stage.WATCHER)
            stage.watchers.append(await stack.enter_async_context(opened))
        await stage.blocks()
        await stage.right()
        yield stage
