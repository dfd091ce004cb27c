"""What a row of the table plays on: a chain, a Redis that may be broken, two engines, two gateways, a client at each.

One stage is used by row after row: each begins on one where everything is right, and leaves it so. "Right" is when
both clients' copies are every value that the chain itself answers at its head, as `rtserver verify` compares.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
from broker.redis_server import RedisServer
from faults_table.against import AgainstChain
from faults_table.watcher import Seen, Watcher, watching
from roles.processes import Deployed, Process

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.demo.rpc import RpcError
from rtserver.tools.compare import Difference

from .line import RedisLine

__all__ = ["Outcome", "Stage", "make_redis", "open_stage"]

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

    def __init__(
        self, lab: Lab, redis: RedisServer, line: RedisLine, deployed: Deployed, *, outage_ms: int, crowd: int
    ) -> None:
        self.lab = lab
        self.redis = redis
        self.line = line
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

    async def standby(self) -> Process:
        """Return the other engine, once it follows the chain."""
        leader = await self.leader()
        (other,) = (one for one in self._deployed.processes if one.role == "engine" and one is not leader)
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

    async def rises(self, process: Process, name: str, above: float) -> None:
        """Wait until a metric is over a value."""
        async with asyncio.timeout(_PATIENCE_S):
            while await self.metric(process, name) <= above:
                await asyncio.sleep(0.02)

    async def start(self) -> None:
        """Start all processes; the engine that is started first is in charge."""
        await self.market.steps(_BEFORE_BLOCKS)
        first = self._deployed.start("engine")
        self.gateways = [self._deployed.start("gateway") for _ in range(2)]
        await first.ready()
        await self.leader()
        self._deployed.start("engine")
        await asyncio.gather(*(gateway.ready() for gateway in self.gateways), self.standby())

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
        async with asyncio.timeout(_PATIENCE_S):
            for watcher in self.watchers:
                await watcher.until(lambda watcher=watcher: watcher.seen.oldest_ms >= self.outage_ms)  # type: ignore[misc]
        channel = self.channels[1]
        async with aiohttp.ClientSession() as session:
            for gateway, watcher in zip(self.gateways, self.watchers, strict=True):
                where = f"{gateway.url}/api/v1/snapshot"
                async with session.get(where, params={"channel": channel}) as response:
                    answer = await response.json()
                    assert response.status == 200, answer
                    assert int(response.headers["Age"]) >= self.outage_ms // 1000
                assert answer["block"]["hash"] == watcher.head, "not of the block that clients see"
                assert answer["ageMs"] >= self.outage_ms
                assert answer["state"] == watcher.client.states[answer["channel"]]

    async def differences(self, watcher: Watcher) -> list[Difference]:
        """Return what a client's copies say that the chain doesn't, at the lab's head."""
        return await self._against.differences(watcher.client.states)

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
        await self.standby()
        await self.blocks()
        await self.right()

    async def close(self) -> None:
        """End what this object opened."""
        await self._against.close()
        # A row that failed may have left it frozen, and what is frozen hears nothing.
        self.redis.thaw()


def make_redis(folder: Path, *options: str) -> RedisServer:
    """Return a server that keeps its data in a new folder: what it has told somebody survives its being killed."""
    own = Path(tempfile.mkdtemp(prefix="redis-", dir=folder))
    return RedisServer(own, "--appendonly", "yes", "--dir", str(own), *options)


@asynccontextmanager
async def open_stage(lab: Lab, folder: Path, *, outage_ms: int, crowd: int) -> AsyncIterator[Stage]:
    """Start everything on a chain as its deployment left it, and wait until both clients are right.

    Args:
        lab: The chain.
        folder: For files.
        outage_ms: See `Stage`.
        crowd: How many clients a gateway is killed with.
    """
    async with AsyncExitStack() as stack:
        redis = await asyncio.to_thread(make_redis, folder)
        await redis.start()
        line = await stack.enter_async_context(RedisLine(redis.port))
        deployed = Deployed(lab, redis, folder, redis_url=line.url)
        with deployed.settings.open("a") as file:
            file.write(_LIMITS)
        stage = Stage(lab, redis, line, deployed, outage_ms=outage_ms, crowd=crowd)
        # Whichever is the stage's then.
        stack.push_async_callback(lambda: stage.redis.end())
        stack.push_async_callback(deployed.end)
        stack.push_async_callback(stage.close)
        await stage.start()
        for gateway in stage.gateways:
            stage.watchers.append(
                await stack.enter_async_context(watching(gateway.ws_url, stage.chain, stage.channels))
            )
        await stage.blocks()
        await stage.right()
        yield stage
