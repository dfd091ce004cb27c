"""The role `gateway`: clients and REST in front of engines that are reached over Redis. Knows no node and no store."""

import asyncio
import secrets
from typing import Any, Final

import structlog

from . import __version__
from .broker.checks import look_at_redis, shown_url
from .broker.following import Follower
from .broker.ports import BrokerAway
from .broker.rates import RedisRates
from .broker.redis_link import RedisBroker
from .config import Settings
from .domain.errors import ConfigError
from .domain.ids import ChainId
from .edge.application import build_application
from .edge.budgets import shared_budgets
from .edge.rest import ServedChain
from .edge.ws import tick_forever
from .hub.hub import Hub
from .hub.limits import Limits
from .hub.relay import Relay
from .obs.metrics import Metrics
from .protocols.channels import Channel
from .serving import OnReady, drain, listening

__all__ = ["open_broker", "run_gateway"]

log = structlog.get_logger(__name__)

# How often a gateway asks which chains there are: one more is a matter of deployment.
_LOOK_S: Final = 2.0


class _Relays:
    """Sends wishes to the relay of their chain."""

    def __init__(self) -> None:
        self.by_chain: dict[ChainId, Relay] = {}

    def want(self, channel: Channel) -> None:
        """Open a channel as soon as it is there."""
        self.by_chain[channel.chain_id].want(channel)

    def unwant(self, channel: Channel) -> None:
        """Close a channel."""
        self.by_chain[channel.chain_id].unwant(channel)


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
    try:
        metrics = Metrics()
        relays = _Relays()
        limits = Limits(**settings.limits.model_dump())
        hub = Hub(relays, limits, metrics)
        served: dict[int, ServedChain] = {}
        budgets = shared_budgets(limits, RedisRates(broker), metrics)
        app, health, sockets = build_application(hub, served, settings, metrics, __version__, budgets=budgets)
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
        await broker.aclose()


async def _find_chains(
    broker: RedisBroker, hub: Hub, relays: _Relays, served: dict[int, ServedChain], metrics: Metrics
) -> None:
    """Serve each chain that an engine says it follows, from when it says so."""
    gateway = secrets.token_hex(8)
    is_away = False
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                described = await broker.described()
                is_away = False
            except BrokerAway as error:
                if not is_away:
                    log.warning("redis does not answer", error=str(error))
                is_away, described = True, {}
            for chain_id in described.keys() - served.keys():
                chain = ChainId(chain_id)
                about: dict[str, Any] = described[chain_id]
                relay = relays.by_chain[chain] = Relay(chain, about["name"], hub, metrics)
                follower = Follower(name=about["name"], link=broker.chain(chain_id), relay=relay, gateway=gateway)
                group.create_task(follower.run(), name=f"chain {about['name']}")
                served[chain_id] = ServedChain(
                    chain, about["name"], about["protocols"], about["headLimitS"], relay.report
                )
                log.info("serving a chain", chain=about["name"])
            await asyncio.sleep(_LOOK_S)
