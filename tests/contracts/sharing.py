"""Engines that share a chain by its channels' names, and gateways that follow all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hub.stage import CHAIN

from rtserver.broker.following import Follower
from rtserver.broker.leading import Leader
from rtserver.broker.memory import MemoryBroker
from rtserver.broker.redis_link import RedisBroker
from rtserver.domain.shards import label_of, parse_shards
from rtserver.gateway import Relays
from rtserver.hub.hub import Hub
from rtserver.hub.limits import Limits
from rtserver.hub.relay import Relay
from rtserver.leads import Lead
from rtserver.obs.metrics import Metrics

from .joined import FOLLOW, LEAD, Engine, Gateway, Joined

__all__ = ["Shared", "Sharer", "shared"]


class Sharer:
    """An engine process that has some of a chain's shards."""

    def __init__(self, ways: Shared, shards: str) -> None:
        self.engine = Engine(ways.truth)
        self.lead = Lead(CHAIN, parse_shards(shards))
        broker = ways.make_broker()
        self.lead.begin("test", frozenset({"uniswap-v3"}), self.engine, broker, Metrics(), LEAD)  # type: ignore[arg-type]
        self.engine.sink = self.lead.publish
        self.engine.start()
        self.tasks = {leader: asyncio.create_task(leader.run()) for leader in self.lead.leaders}

    def leader(self, shard: int) -> Leader:
        return self.lead._leaders[shard]

    async def crash(self) -> None:
        """End it as a crash does: its leases are left to expire."""
        for leader, task in self.tasks.items():
            leader._token = None
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


class Shared(Joined):
    """A chain that engines share; see Joined for the rest."""

    def __init__(self, make_broker: Callable[[], RedisBroker | MemoryBroker], count: int) -> None:
        super().__init__(lambda: make_broker().chain(CHAIN))
        self.make_broker = make_broker
        self.count = count
        self.sharers: list[Sharer] = []
        self.tasks: list[asyncio.Task[None]] = []

    def share(self, shards: str) -> Sharer:
        self.sharers.append(one := Sharer(self, shards))
        self.writers.append(one)  # type: ignore[arg-type]  # told of blocks like any engine
        return one

    def add_gateway(self, limits: Limits | None = None) -> Gateway:
        gateway = Gateway(limits or Limits(linger_s=0.0))
        metrics, relays, name = Metrics(), Relays(), f"g{len(self.gateways)}"
        gateway.hub = Hub(relays, gateway.limits, metrics)
        relays.by_chain[CHAIN] = [
            Relay(CHAIN, "test", gateway.hub, metrics, shard=label_of(shard, self.count)) for shard in range(self.count)
        ]
        broker = self.make_broker()
        for shard, relay in enumerate(relays.by_chain[CHAIN]):
            link = broker.chain(CHAIN, shard, self.count)
            follower = Follower(name="test", link=link, relay=relay, gateway=name, limits=FOLLOW)
            self.tasks.append(asyncio.create_task(follower.run()))
        gateway.relays = relays.by_chain[CHAIN]
        self.gateways.append(gateway)
        return gateway

    def report(self) -> str:
        lines = [f"chain at {self.truth.head.number}"]
        lines += [f"engine {one.lead.report()} open {one.engine.open}" for one in self.sharers]
        for gateway in self.gateways:
            lines.append(f"gateway {gateway.hub.head(CHAIN)} {[relay.report() for relay in gateway.relays]}")
        return "\n".join(lines)


@asynccontextmanager
async def shared(kind: str, count: int, make_redis: Callable[[], RedisBroker]) -> AsyncIterator[Shared]:
    """Yield everything, without an engine; what runs of it in the end is ended."""
    brokers: list[RedisBroker] = []
    memory = MemoryBroker()

    def make() -> RedisBroker | MemoryBroker:
        if kind == "memory":
            return memory
        brokers.append(one := make_redis())
        return one

    ways = Shared(make, count)
    try:
        yield ways
    finally:
        for task in ways.tasks:
            task.cancel()
        await asyncio.gather(*ways.tasks, return_exceptions=True)
        for one in ways.sharers:
            await one.crash()
        for broker in brokers:
            await broker.aclose()
