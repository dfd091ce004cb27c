"""An engine that a test plays, gateways, and clients whose socket is a list; joined directly, in memory or by Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from hub.stage import CHAIN, Client, channel, header

from rtserver.broker.following import Follower, FollowLimits
from rtserver.broker.leading import Leader, LeadLimits
from rtserver.broker.memory import MemoryBroker
from rtserver.broker.ports import ChainLink
from rtserver.broker.redis_link import RedisBroker
from rtserver.domain.chain import BlockRef, Rollback
from rtserver.domain.diff import Change, State, apply
from rtserver.domain.errors import ClientError
from rtserver.domain.update import BlockUpdate
from rtserver.hub.hub import Hub
from rtserver.hub.ledger import Ledger
from rtserver.hub.limits import Limits
from rtserver.hub.relay import Relay
from rtserver.obs.metrics import Metrics
from rtserver.protocols.channels import Channel

__all__ = ["Engine", "Gateway", "Joined", "joined", "until"]

LEAD = LeadLimits(lease_s=0.6, renew_s=0.1, warm_s=2.0, look_s=0.1, patience_s=0.3, retry_s=0.02)
FOLLOW = FollowLimits(wish_s=10.0, silence_s=0.5, retry_s=0.02, batch_s=0.002, remove_s=0.0)


async def until(condition: Callable[[], Any], within_s: float = 15.0) -> None:
    """Wait until what other tasks do has happened."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.001)


class Truth:
    """The chain that a test plays, the same for all engines."""

    def __init__(self) -> None:
        self.head = header(100)
        self.states: dict[str, State] = {}
        self.forbidden: set[str] = set()

    def state(self, name: str) -> State:
        return self.states.setdefault(name, {"0": {"value": "0", "block": 0, "inner": {"a": 1}}})


class Engine:
    """What computes: opens at once what is wished for, and publishes what the test says."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.open: set[str] = set()
        self.sink: Callable[[BlockUpdate], None] = lambda update: None

    def want(self, wanted: Channel) -> None:
        if wanted.name not in self.truth.forbidden:
            self.open.add(wanted.name)
        # As an engine does: not within the call.
        asyncio.get_running_loop().call_soon(self._open_now, wanted.name)

    def _open_now(self, name: str) -> None:
        """Say the first state, of the block that is the newest by now."""
        update = BlockUpdate(chain_id=CHAIN, header=self.truth.head, is_new_head=False)
        if name in self.truth.forbidden:
            update.refused[name] = ClientError("bad_channel", "not in this test")
        elif name in self.open:
            update.opened[name] = self.truth.state(name)
        self.sink(update)

    def unwant(self, wanted: Channel) -> None:
        self.open.discard(wanted.name)

    def start(self) -> None:
        self.sink(BlockUpdate(chain_id=CHAIN, header=self.truth.head))

    def say(self, changes: dict[str, Change], rollback: Rollback | None = None) -> None:
        mine = {name: change for name, change in changes.items() if name in self.open}
        self.sink(BlockUpdate(chain_id=CHAIN, header=self.truth.head, changes=mine, rollback=rollback))


class Gateway:
    """A hub with clients; `relay` is None where the engine's steps are handed to it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.relay: Relay | None = None
        # Of all shards, where there are several.
        self.relays: list[Relay] = []
        self.task: asyncio.Task[None] | None = None
        self.hub: Hub

    @property
    def now(self) -> float:
        return time.monotonic()

    def client(self, name: str = "client") -> Client:
        return Client(self, name)  # type: ignore[arg-type]

    async def stop(self) -> None:
        """End it as a crash does, but for its task's last word."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Writer:
    """An engine process: streams and leader."""

    def __init__(self, link: ChainLink, truth: Truth) -> None:
        self.engine = Engine(truth)
        self.ledger = Ledger(CHAIN)
        self.leader = Leader(
            chain_id=CHAIN,
            name="test",
            kinds=frozenset({"uniswap-v3"}),
            link=link,
            ledger=self.ledger,
            engine=self.engine,
            metrics=Metrics(),
            limits=LEAD,
        )
        self.engine.sink = self.leader.publish
        self.engine.start()
        self.task = asyncio.create_task(self.leader.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Joined:
    """Everything of one test."""

    def __init__(self, make_link: Callable[[], ChainLink] | None) -> None:
        self.make_link = make_link
        self.truth = Truth()
        self.gateways: list[Gateway] = []
        self.writers: list[Writer] = []
        self._engine = Engine(self.truth)
        self.clients: list[Client] = []

    @property
    def is_direct(self) -> bool:
        return self.make_link is None

    async def begin(self, gateways: int) -> None:
        if self.make_link is not None:
            self.add_writer()
        for _ in range(gateways if self.make_link is not None else 1):
            self.add_gateway()
        await self.settled()

    def add_writer(self) -> Writer:
        assert self.make_link is not None
        writer = Writer(self.make_link(), self.truth)
        self.writers.append(writer)
        return writer

    def add_gateway(self, limits: Limits | None = None) -> Gateway:
        gateway = Gateway(limits or Limits(linger_s=0.0))
        if self.make_link is None:
            gateway.hub = Hub(self._engine, gateway.limits, Metrics())
            self._engine.sink = gateway.hub.publish
            self._engine.start()
        else:
            metrics = Metrics()
            relay = gateway.relay = Relay(CHAIN, "test", None, metrics)  # type: ignore[arg-type]
            gateway.relays = [relay]
            relay._hub = gateway.hub = Hub(relay, gateway.limits, metrics)
            name = f"g{len(self.gateways)}"
            follower = Follower(name="test", link=self.make_link(), relay=relay, gateway=name, limits=FOLLOW)
            gateway.task = asyncio.create_task(follower.run())
        self.gateways.append(gateway)
        return gateway

    # --- the chain ------------------------------------------------------------------------------------

    def block(self, changes: dict[Channel, Change] | None = None) -> None:
        """Mine a block; the truth follows."""
        self.truth.head = header(self.truth.head.number + 1)
        self._say(changes or {}, None)

    def set_value(self, value: str, *channels: Channel) -> None:
        """Mine a block that changes one field of some channels."""
        number = self.truth.head.number + 1
        self.block({one: Change(patch={"0": {"value": value, "block": number}}) for one in channels})

    def reorg(self, depth: int, changes: dict[Channel, Change] | None = None) -> None:
        """Replace the newest blocks by one more of another branch; depth 0 is deeper than anyone knows."""
        old = self.truth.head
        self.truth.head = header(old.number + 1, branch=old.number)
        to = header(old.number - depth) if depth else None
        rollback = Rollback(
            to=None if to is None else BlockRef(number=to.number, hash=to.hash),
            dropped=tuple(header(old.number - index).hash for index in range(depth)),
        )
        self._say(changes or {}, rollback)

    def _say(self, changes: dict[Channel, Change], rollback: Rollback | None) -> None:
        named = {one.name: change for one, change in changes.items()}
        for name, change in named.items():
            self.truth.state(name)
            apply(self.truth.states[name], change)
        engines = [self._engine] if self.is_direct else [writer.engine for writer in self.writers]
        for engine in engines:
            engine.say(named, rollback)

    # --- clients --------------------------------------------------------------------------------------

    def client(self, gateway: int = 0) -> Client:
        client = self.gateways[gateway if not self.is_direct else 0].client()
        self.clients.append(client)
        return client

    async def subscribed(self, client: Client, wanted: Channel, request_id: int = 1, cursor: str | None = None) -> str:
        """Subscribe and return how that was answered."""
        client.subscribe(wanted, request_id, cursor)

        def answer() -> Any:
            client.read()
            found = [one for one in client.replica.others if one.get("id") == request_id]
            return found[-1] if found else None

        await until(answer)
        reply = answer()
        return str(reply.get("how", reply.get("code")))

    async def settled(self) -> None:
        """Wait until every gateway is where the chain is, and every client has what there is."""
        try:
            await until(lambda: all(self._is_there(gateway) for gateway in self.gateways))
        except TimeoutError:
            raise AssertionError(self.report()) from None

    def report(self) -> str:
        """Where everyone is: what a failure shows."""
        lines = [f"chain at {self.truth.head.number}"]
        for writer in self.writers:
            lines.append(f"engine {writer.leader.report()} step {writer.leader._number} open {writer.engine.open}")
            lines.append(f"  {writer.task}")
            lines.append(f"  streams {list(writer.ledger.streams)} wishes {writer.leader._wanted}")
        for gateway in self.gateways:
            head = gateway.hub.head(CHAIN)
            waiting = [(session.name, list(session.pending)) for session in gateway.hub.sessions if session.pending]
            lines.append(f"gateway at {head and head.number} waiting {waiting}")
            if gateway.relay is not None:
                relay = gateway.relay
                lines.append(f"  {relay.report()} open {list(relay._mirrors)} cold {list(relay._cold)} {relay._read}")
                lines.append(f"  wanted {list(relay._wanted)} to announce {relay.next_wishes()}")
        return "\n".join(lines)

    def _is_there(self, gateway: Gateway) -> bool:
        if not all(relay.is_live for relay in gateway.relays):
            return False
        head = gateway.hub.head(CHAIN)
        if head is None or head.hash != self.truth.head.hash:
            return False
        return not any(session.pending for session in gateway.hub.sessions)

    async def converged(self) -> None:
        """Wait until every client's copies are the truth; whatever else a replica finds wrong it raises by itself."""
        await self.settled()

        def are_same() -> bool:
            for client in self.clients:
                client.read()
            return all(
                client.replica.states.get(name) == self.truth.state(name)
                for client in self.clients
                for name in client.session.joined
            )

        await until(are_same)


@asynccontextmanager
async def joined(kind: str, make_redis: Callable[[], RedisBroker]) -> AsyncIterator[Joined]:
    """Yield everything; what runs of it in the end is ended."""
    brokers: list[RedisBroker] = []

    def redis_link() -> ChainLink:
        brokers.append(make_redis())
        return brokers[-1].chain(CHAIN)

    memory = MemoryBroker()
    makers: dict[str, Callable[[], ChainLink] | None] = {
        "direct": None, "memory": lambda: memory.chain(CHAIN), "redis": redis_link, "cluster": redis_link,
    }  # fmt: skip
    one = Joined(makers[kind])
    try:
        yield one
    finally:
        for gateway in one.gateways:
            if gateway.task is not None:
                await gateway.stop()
        for writer in one.writers:
            await writer.stop()
        for broker in brokers:
            await broker.aclose()


def some_channel(number: int) -> Channel:
    return channel(number)
