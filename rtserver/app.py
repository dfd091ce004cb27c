"""The composition root: builds the parts, joins them, runs them in one TaskGroup, and takes them down in order."""

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

import structlog
from aiohttp import web

from . import __version__
from .broker.answering import Answering
from .chain_ids import fetch_chain_ids
from .config import ChainSettings, Settings
from .domain.ids import ChainId
from .edge.application import build_application
from .edge.earnings import BookEarnings
from .edge.health import Health, process_of
from .edge.problems import problem_middleware
from .edge.proxies import Proxies
from .edge.rest import ServedChain
from .edge.ws import Sockets, tick_forever
from .engine.runner import ChainRunner
from .gateway import open_broker, run_gateway
from .history.reading import ChainHistory, Histories
from .history.then import HistoryThen
from .hub.hub import Hub
from .hub.limits import Limits
from .leads import Lead, Leads, claim_shards, first_of, lead_all, reckoner
from .obs.collector import Collector
from .obs.huge_pages import ask_forever
from .obs.metrics import Metrics
from .parts import ChainParts, Sink, close, finish, follow
from .protocols.channels import Channel
from .serving import OnReady, drain, listening
from .store.values import ALONE
from .worth.build import build_sources
from .worth.http_prices import PriceFetcher
from .worth.then import PricesThen

if TYPE_CHECKING:
    from .store.history import HistoryStore
    from .store.store import Store

__all__ = ["run_server"]

log = structlog.get_logger(__name__)


class _Router:
    """Sends wishes to the engine of their chain."""

    def __init__(self) -> None:
        self.runners: dict[ChainId, ChainRunner] = {}

    def want(self, channel: Channel) -> None:
        """Open a channel as soon as its state has been read."""
        self.runners[channel.chain_id].want(channel)

    def unwant(self, channel: Channel) -> None:
        """Close a channel."""
        self.runners[channel.chain_id].unwant(channel)


def _build(
    settings: Settings, ids: list[ChainId], metrics: Metrics, store: "Store | None"
) -> tuple[list[ChainParts], list[PriceFetcher | PricesThen], Hub, web.Application, Health, Sockets]:
    router = _Router()
    limits = settings.limits
    hub = Hub(router, Limits(**limits.model_dump()), metrics)
    records = _open_history(settings, store)
    make = _maker(settings, metrics, store, records)
    chains = [make(chosen, chain_id, hub, _alone) for chosen, chain_id in zip(settings.chains, ids, strict=True)]
    router.runners = {chain.chain_id: chain.runner for chain in chains}
    served: Mapping[int, ServedChain] = {
        chain.chain_id: ServedChain(chain.chain_id, chain.name, chain.protocols, chain.head_limit_s, chain.following)
        for chain in chains
    }
    earnings, past = _told(chains, records, settings)
    fetchers, prices = _sources(settings, chains, metrics, records)
    built = build_application(hub, served, settings, metrics, __version__, prices, earnings, past)
    return chains, fetchers, hub, *built


def _maker(
    settings: Settings, metrics: Metrics, store: "Store | None", records: "HistoryStore | None"
) -> Callable[[ChainSettings, ChainId, Sink, Callable[[], str | None]], ChainParts]:
    """Return what makes a chain's parts: the same for every role but for who takes its steps, and is in charge when."""

    def make(chosen: ChainSettings, chain_id: ChainId, sink: Sink, charge: Callable[[], str | None]) -> ChainParts:
        return ChainParts(
            chosen, chain_id, sink, metrics, settings.prices, store, settings.store.every_s, records, settings.history,
            charge, settings.shards.label,
        )  # fmt: skip

    return make


def _histories(chains: list[ChainParts]) -> dict[ChainId, ChainHistory]:
    return {chain.chain_id: chain.history for chain in chains if chain.history is not None}


def _told(
    chains: list[ChainParts], records: "HistoryStore | None", settings: Settings
) -> tuple[BookEarnings, Histories | None]:
    """Return what is told beside channels: what positions earned, and their past where it is recorded."""
    by_id = {chain.chain_id: chain for chain in chains}
    earnings = BookEarnings(
        {chain.chain_id: chain.books for chain in chains},
        lambda chain_id: by_id[chain_id].prices.prices,
        lambda chain_id, kind, token_id: by_id[chain_id].runner.price_past(kind, token_id),
    )
    if records is None:
        return earnings, None
    return earnings, Histories(records, _histories(chains), settings.history.every_s)


def _sources(
    settings: Settings, chains: list[ChainParts], metrics: Metrics, records: "HistoryStore | None"
) -> tuple[list[PriceFetcher | PricesThen], Callable[[], dict[str, Any]]]:
    return build_sources(
        settings.prices,
        {chain.chain_id: (chain.prices, chain.books) for chain in chains},
        [] if records is None else [HistoryThen(records, _histories(chains))],
        metrics,
    )


async def run_server(settings: Settings, stop: asyncio.Event, on_ready: OnReady | None = None) -> None:
    """Do what the role is until `stop` is set, then say bye and close everything within five seconds.

    Args:
        settings: All settings.
        stop: Set from outside, by a signal.
        on_ready: Called with the addresses once clients can connect.

    Raises:
        ConfigError: A port is taken, a chain can't be what the settings say, or there is no Redis for a role.
    """
    with Collector():
        asking = asyncio.create_task(ask_forever(), name="huge pages")
        try:
            match settings.role:
                case "all":
                    await _run_all(settings, stop, on_ready)
                case "engine":
                    await _run_engine(settings, stop, on_ready)
                case "gateway":
                    await run_gateway(settings, stop, on_ready)
                case _:
                    assert_never(settings.role)
        finally:
            asking.cancel()


async def _run_all(settings: Settings, stop: asyncio.Event, on_ready: OnReady | None) -> None:
    """Compute and deliver."""
    metrics = Metrics()
    # First what can be wrong with the settings alone.
    store = await _open_store(settings)
    ids = await fetch_chain_ids(settings)
    chains, fetchers, hub, app, health, sockets = _build(settings, ids, metrics, store)
    try:
        async with listening(app, settings, metrics, health, on_ready) as url:
            log.info("serving", url=url, chains=[chain.name for chain in chains])
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(tick_forever(hub), name="tick"), *follow(group, chains, fetchers)]
                await stop.wait()
                health.is_draining = sockets.is_draining = True
                log.info("shutting down", connections=sum(1 for _ in hub.sessions))
                kept = (finish(chain, partial(hub.kept_streams, chain.chain_id)) for chain in chains)
                await asyncio.gather(drain(hub), *kept)
                for task in tasks:
                    task.cancel()
    finally:
        await close(chains, store)


async def _run_engine(settings: Settings, stop: asyncio.Event, on_ready: OnReady | None) -> None:
    """Compute, and publish over Redis; the port has health and metrics only."""
    metrics = Metrics()
    store = await _open_store(settings)
    chains: list[ChainParts] = []
    broker = None
    try:
        broker = await open_broker(settings)
        leads = [Lead(chain_id, settings.shards) for chain_id in await fetch_chain_ids(settings)]
        records = _open_history(settings, store)
        make = _maker(settings, metrics, store, records)
        served: dict[int, ServedChain] = {}
        for chosen, lead in zip(settings.chains, leads, strict=True):
            # Of those who share a database whoever leads writes; a file is nobody else's, and is written at all times.
            # So is what one for any shard keeps.
            takes_turns = store is not None and store.database.is_shared and len(settings.shards.mine) == 1
            charge = partial(_charge, lead) if takes_turns else _alone
            chain = make(chosen, lead.chain_id, lead, charge)
            report = partial(_both, chain, lead)
            about = ServedChain(chain.chain_id, chain.name, chain.protocols, chain.head_limit_s, report)
            await claim_shards(broker, chain.chain_id, chain.name, settings.shards.count)
            lead.begin(chain.name, about.kinds, chain.runner, broker, metrics)
            served[chain.chain_id] = about
            chains.append(chain)
        earnings, past = _told(chains, records, settings)
        answering: list[Answering] = []
        for chain, lead in zip(chains, leads, strict=True):
            kinds = served[chain.chain_id].kinds
            reckon = reckoner(chain.chain_id, kinds, earnings, past)
            first = first_of(chain.chain_id, kinds, earnings, past)
            answering += lead.answer(reckon, first, partial(_is_at_rest, chain), metrics)
        fetchers, prices = _sources(settings, chains, metrics, records)
        health = Health(Leads(leads), served, metrics, prices, process_of(settings))
        app = web.Application(middlewares=[problem_middleware(metrics, settings.origins, Proxies(()))])
        app.add_routes(health.routes())
        async with listening(app, settings, metrics, health, on_ready) as url:
            log.info("serving", role="engine", url=url, chains=[chain.name for chain in chains])
            async with asyncio.TaskGroup() as group:
                tasks = follow(group, chains, fetchers)
                tasks += lead_all(group, leads, broker, served, settings.shards.count)
                tasks += [group.create_task(one.run(), name="answers") for one in answering]
                await stop.wait()
                health.is_draining = True
                log.info("shutting down")
                # Streams never go on in another engine: its run is a new one.
                await asyncio.gather(*(finish(chain, dict) for chain in chains))
                for task in tasks:
                    task.cancel()
    finally:
        await close(chains, store)
        if broker is not None:
            await broker.aclose()


def _alone() -> str:
    return ALONE


def _charge(lead: Lead) -> str | None:
    return lead.charge


def _is_at_rest(chain: ChainParts) -> bool:
    return chain.runner.is_at_rest


def _both(chain: ChainParts, lead: Lead) -> dict[str, Any]:
    return {**chain.following(), **lead.report()}


async def _open_store(settings: Settings) -> "Store | None":
    if not settings.store.enabled:
        return None
    # Imported only here: SQLAlchemy takes a third of a second, and not everyone has a store.
    from .store.opening import open_store

    url = settings.store.url
    plain = None if url is None else url.get_secret_value()
    return await open_store(plain, settings.store.path, os.environ, settings.shards.label)


def _open_history(settings: Settings, store: "Store | None") -> "HistoryStore | None":
    if store is None or not settings.history.enabled:
        return None
    if len(settings.shards.mine) > 1:
        # Its positions are of shards that it leads and of others: those it may not write, and doesn't know apart.
        log.info("an engine for any shard records no history", shard=settings.shard)
        return None
    from .store.history import HistoryStore

    return HistoryStore(store.database)
