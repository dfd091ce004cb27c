"""The role `gateway`: clients and REST in front of engines that are reached over Redis. Knows no
node; of a store it reads the past, and nothing else.
"""

import asyncio
import secrets
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from . import __version__
from .broker.asking import Asking
from .broker.checks import look_at_redis, shown_url
from .broker.following import Follower
from .broker.ports import BrokerAway
from .broker.rates import RedisRates
from .broker.redis_asks import RedisAsks
from .broker.redis_link import RedisBroker
from .config import Settings
from .domain.errors import ConfigError
from .domain.ids import ChainId
from .domain.shards import label_of, named, shard_of
from .edge.application import build_application
from .edge.budgets import shared_budgets
from .edge.earnings import EngineEarnings
from .edge.rest import ServedChain
from .edge.ws import tick_forever
from .history.apart import PastApart
from .hub.hub import Hub
from .hub.limits import Limits
from .hub.relay import Relay
from .obs.metrics import Metrics
from .protocols.channels import Channel
from .serving import OnReady, drain, listening

if TYPE_CHECKING:
    from .store.database import Database

__all__ = ["Relays", "open_broker", "run_gateway"]

log = structlog.get_logger(__name__)

# How often a gateway asks which chains there are: one more is a matter of deployment.
_LOOK_S: Final = 2.0


class Relays:
    """Sends wishes to the relay of their chain and shard, and what is asked beside them to the engine of it."""

    def __init__(self) -> None:
        # By chain; one for each shard.
        self.by_chain: dict[ChainId, list[Relay]] = {}
        self.asking_by_chain: dict[ChainId, list[Asking]] = {}

    def _of(self, channel: Channel) -> Relay:
        relays = self.by_chain[channel.chain_id]
        return relays[shard_of(channel.name, len(relays))]

    def want(self, channel: Channel) -> None:
        """Open a channel as soon as it is there."""
        self._of(channel).want(channel)

    def unwant(self, channel: Channel) -> None:
        """Close a channel."""
        self._of(channel).unwant(channel)

    def asking(self, channel: Channel) -> Asking | None:
        """Return who asks the engine that a channel comes from; None while nobody follows its chain."""
        asking = self.asking_by_chain.get(channel.chain_id)
        return None if asking is None else asking[shard_of(channel.name, len(asking))]

    def asking_all(self, chain_id: ChainId) -> list[Asking]:
        """Return who asks the engines of a chain, by shard; none while nobody follows it."""
        return self.asking_by_chain.get(chain_id, [])

    def report(self, chain_id: ChainId) -> dict[str, Any]:
        """Return what the health report says of a chain: of each shard where there are several."""
        reports = [relay.report() for relay in self.by_chain[chain_id]]
        if len(reports) == 1:
            return reports[0]
        return {
            "live": all(one["live"] for one in reports),
            "shardCount": len(reports),
            "shards": {str(shard): one for shard, one in enumerate(reports)},
        }


async def open_broker(settings: Settings) -> RedisBroker:
    """Return the broker of the settings.

    A gateway starts in front of any Redis: whether it may be relied on is for those who write to judge.

    Raises:
        ConfigError: No Redis answers there, or not one that will do.
    """
    assert settings.redis.url is not None, "settings with a role have a url"
    url = settings.redis.url.get_secret_value()
    about = await look_at_redis(url)
    for finding in about.findings:
        if finding.is_fatal and settings.role != "gateway":
            raise ConfigError(f"redis.url: {shown_url(url)}: {finding.text}")
        log.warning("redis is not as it should be", reason=finding.text)
    log.info("redis", version=about.version, maxmemory=about.maxmemory, append_only=about.is_append_only)
    return RedisBroker(url, settings.redis.prefix)


async def run_gateway(settings: Settings, stop: asyncio.Event, on_ready: OnReady | None) -> None:
    """Serve clients until `stop` is set, then say bye.

    Raises:
        ConfigError: The port is taken, or there is no Redis.
    """
    broker = await open_broker(settings)
    database = None
    try:
        metrics = Metrics()
        limits = Limits(**settings.limits.model_dump())
        relays = Relays()
        hub = Hub(relays, limits, metrics)
        served: dict[int, ServedChain] = {}
        database = _open_history(settings)
        app, health, sockets = build_application(
            hub,
            served,
            settings,
            metrics,
            __version__,
            earnings=EngineEarnings(relays.asking),
            past=None if database is None else _past(database, relays, served),
            budgets=shared_budgets(limits, RedisRates(broker), metrics),
        )
        async with listening(app, settings, metrics, health, on_ready) as url:
            log.info("serving", role="gateway", url=url)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(tick_forever(hub), name="tick"),
                    group.create_task(_find_chains(broker, hub, relays, served, metrics), name="chains"),
                ]
                await stop.wait()
                health.is_draining = sockets.is_draining = True
                log.info("shutting down", connections=sum(1 for _ in hub.sessions))
                await drain(hub)
                for task in tasks:
                    task.cancel()
    finally:
        if database is not None:
            await database.close()
        await broker.aclose()


def _open_history(settings: Settings) -> "Database | None":
    """Return the database that engines write the past to, if the settings name one; it is opened when it is read.

    Raises:
        ConfigError: It is none.
    """
    store = settings.store
    if not (store.enabled and settings.history.enabled) or (store.url is None and store.path is None):
        return None
    # Imported only here: SQLAlchemy takes a third of a second, and not everyone has a store.
    from .store.database import Database, sqlite_url

    url = store.url.get_secret_value() if store.url is not None else ""
    return Database(url if store.path is None else sqlite_url(store.path))


def _past(database: "Database", relays: Relays, served: Mapping[int, ServedChain]) -> PastApart:
    from .store.history import HistoryStore

    def identity(chain_id: ChainId, kind: str) -> str:
        found = next(one for one in served[chain_id].protocols if one["kind"] == kind)
        return found["positionManager"].lower()

    return PastApart(HistoryStore(database), relays.asking_all, identity)


async def _find_chains(
    broker: RedisBroker, hub: Hub, relays: Relays, served: dict[int, ServedChain], metrics: Metrics
) -> None:
    """Serve each chain that an engine says it follows, from when it says so."""
    is_away = False
    async with asyncio.TaskGroup() as group:
        chains: dict[int, _Chain] = {}
        while True:
            try:
                described = await broker.described()
                is_away = False
            except BrokerAway as error:
                if not is_away:
                    log.warning("redis does not answer", error=str(error))
                is_away, described = True, {}
            for chain_id, about in described.items():
                chain = chains.get(chain_id)
                if chain is None:
                    chain = chains[chain_id] = _Chain(ChainId(chain_id), about["name"], broker, hub, relays, metrics)
                    log.info("serving a chain", chain=about["name"])
                await chain.follow(group, about.get("shards", 1))
                if chain_id not in served:
                    report = partial(relays.report, chain.chain_id)
                    served[chain_id] = ServedChain(
                        chain.chain_id, about["name"], about["protocols"], about["headLimitS"], report
                    )
            await asyncio.sleep(_LOOK_S)


class _Chain:
    """One chain's relays and what they hear, a pair for each shard."""

    def __init__(
        self, chain_id: ChainId, name: str, broker: RedisBroker, hub: Hub, relays: Relays, metrics: Metrics
    ) -> None:
        self.chain_id = chain_id
        self._name = name
        self._broker = broker
        self._hub = hub
        self._relays = relays
        self._metrics = metrics
        self._tasks: list[asyncio.Task[None]] = []

    async def follow(self, group: asyncio.TaskGroup, shards: int) -> None:
        """Follow a chain that is spread over so many shards; anew where these were others before."""
        if len(self._relays.by_chain.get(self.chain_id, ())) == shards:
            return
        # Ended first: what a gateway wishes for is known by its id.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        before = self._relays.by_chain.get(self.chain_id, [])
        fresh = [
            Relay(self.chain_id, self._name, self._hub, self._metrics, shard=label_of(shard, shards))
            for shard in range(shards)
        ]
        self._relays.by_chain[self.chain_id] = fresh
        if before:
            log.warning("a chain is shared in another way", chain=self._name, shards=shards)
        for old in before:
            for channel in old.give_up():
                if self._hub.knows(channel):
                    self._relays.want(channel)
        if before:
            self._hub.forget_heads(self.chain_id)
        gateway = secrets.token_hex(8)
        self._tasks = []
        asking = []
        for shard, relay in enumerate(fresh):
            link = self._broker.chain(self.chain_id, shard, shards)
            name = named(self._name, label_of(shard, shards))
            follower = Follower(name=name, link=link, relay=relay, gateway=gateway)
            head = partial(self._hub.shard_head, self.chain_id, label_of(shard, shards))
            asking.append(Asking(name=name, link=RedisAsks(link), head=head, metrics=self._metrics))
            self._tasks.append(group.create_task(follower.run(), name=f"chain {name}"))
            self._tasks.append(group.create_task(asking[-1].run(), name=f"asks {name}"))
        self._relays.asking_by_chain[self.chain_id] = asking
