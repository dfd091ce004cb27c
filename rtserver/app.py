"""The composition root: builds the parts, joins them, runs them in one TaskGroup, and takes them down in order."""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, assert_never

import orjson
import structlog
from aiohttp import web

from . import __version__
from .chain.linker import Linker
from .chain.reader import ChainReader
from .chain.rpc import make_endpoint
from .chain.source import ChainSource
from .chain_ids import fetch_chain_ids
from .config import ChainSettings, HistorySettings, PriceSettings, ProtocolSettings, Settings
from .domain.errors import ConfigError
from .domain.ids import Address, ChainId
from .domain.update import BlockUpdate
from .edge.application import build_application
from .edge.earnings import BookEarnings
from .edge.health import Health, process_of
from .edge.problems import problem_middleware
from .edge.proxies import Proxies
from .edge.rest import ServedChain
from .edge.ws import Sockets, tick_forever
from .engine.core import EngineCore
from .engine.keeping import Keeper
from .engine.memory import Memory
from .engine.resuming import Resuming
from .engine.runner import ChainRunner
from .gateway import open_broker, run_gateway
from .history.build import Chain, Kept, build_history
from .history.reading import ChainHistory, Histories
from .hub.hub import Hub
from .hub.limits import Limits
from .leads import Lead, Leads, claim_shards, lead_all
from .obs.collector import Collector
from .obs.metrics import Metrics
from .protocols.addresses import checksum, parse_address
from .protocols.base import Book
from .protocols.channels import Channel
from .protocols.registry import adapters
from .serving import OnReady, drain, listening
from .store.values import KeptStream
from .worth.build import build_aggregator, build_fetchers, hops_of, watch_prices
from .worth.http_prices import PriceFetcher

if TYPE_CHECKING:
    from .store.history import HistoryStore
    from .store.store import Store

__all__ = ["identity_of", "run_server"]

log = structlog.get_logger(__name__)

# Two calls beside the blocks, for what is safe and finalized.
_FINALITY_EVERY_BLOCKS: Final = 16
# After SIGTERM: time for the step that is being read, and for the last checkpoint.
_REST_S: Final = 0.5
_KEEP_S: Final = 1.5
# And for the records that wait.
_RECORD_S: Final = 0.5
# A chain that is not known by id: a guess that only limits derive from.
_DEFAULT_BLOCK_TIME_S: Final = 12.0


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


class _Sink(Protocol):
    """Where a chain's steps go, and from where its wishes come: the hub, or an engine's lead."""

    def publish(self, update: BlockUpdate) -> None:
        """Take a step."""

    def reopen(self, channel: Channel) -> None:
        """Wish for a channel that an earlier process had open."""

    def go_on(self, streams: Mapping[str, KeptStream]) -> None:
        """Take an earlier process' streams."""


class _Chain:
    """The parts of one chain."""

    def __init__(
        self,
        settings: ChainSettings,
        chain_id: ChainId,
        sink: _Sink,
        metrics: Metrics,
        prices: PriceSettings,
        store: "Store | None",
        keep_every_s: float,
        records: "HistoryStore | None",
        history: HistorySettings,
    ) -> None:
        known = {kind: adapter.deployments.get(chain_id) for kind, adapter in adapters().items()}
        first = next((deployment for deployment in known.values() if deployment is not None), None)
        self.chain_id = chain_id
        self.name = settings.name or (first.chain_name if first else f"chain-{chain_id}")
        stablecoins = settings.stablecoins
        if stablecoins is None:
            stablecoins = tuple(map(parse_address, first.stablecoins)) if first else ()
        dollars = [Address(token) for token in stablecoins]
        hops = hops_of(chain_id, settings)
        deviation_bps = round(prices.deviation_percent * 100)
        block_time_s = settings.block_time_s or (first.block_time_s if first else _DEFAULT_BLOCK_TIME_S)
        self.head_limit_s = settings.head_limit_s or max(20.0, 6 * block_time_s)

        deployed = settings.protocols
        if deployed is None:
            deployed = tuple(
                ProtocolSettings(
                    kind=kind,
                    factory=deployment.factory,
                    position_manager=deployment.position_manager,
                    staker=deployment.staker,
                    first_block=deployment.first_block,
                )
                for kind, deployment in known.items()
                if deployment is not None
            )
        self.books: dict[str, Book] = {}
        books = self.books
        first_blocks: dict[Address, int] = {}
        self.protocols: list[dict[str, str]] = []
        for protocol in deployed:
            manager = Address(protocol.position_manager)
            staker = None if protocol.staker is None else Address(protocol.staker)
            code_hash = protocol.init_code_hash
            books[protocol.kind] = adapters()[protocol.kind].build(
                chain_id,
                Address(protocol.factory),
                manager,
                None if code_hash is None else bytes.fromhex(code_hash[2:]),
                dollars,
                hops=hops,
                staker=staker,
                rewards_every_s=settings.rewards_every_s,
                looks_back=settings.looks_back,
                deviation_bps=deviation_bps,
            )
            self._describe(protocol.kind, protocol.factory, manager, staker)
            if protocol.first_block is not None:
                first_blocks |= {contract: protocol.first_block for contract in (manager, staker) if contract}
        if not books:
            raise ConfigError(
                f"chain {chain_id} is not known: name its contracts in a file with [[chains]] and "
                "[[chains.protocols]] (kind, factory, position_manager), and give it through --config"
            )

        urls = settings.urls
        timeout_s = settings.rpc_timeout_s
        ws = [url for url in urls if url.startswith("ws")]
        self.reader = ChainReader(
            self.name,
            [make_endpoint(url, timeout_s=timeout_s) for url in urls],
            metrics,
            max_in_flight=settings.rpc_in_flight,
            per_s=settings.rpc_calls_per_s,
            first_blocks=first_blocks,
        )
        self.source = ChainSource(
            chain_id=chain_id,
            name=self.name,
            ws_urls=ws,
            reader=self.reader,
            # With a subscription, polling is the net under it; without one, it is the way.
            silence_s=max(2.5 * block_time_s, 2.0) if ws else min(max(block_time_s / 3, 0.2), 4.0),
            connect_timeout_s=timeout_s,
            metrics=metrics,
            linker=Linker(),
            # Heads are asked for node by node: which of them says what decides whom to believe.
            nodes=self.reader.nodes(),
            heard=self.reader.saw,
            finality_every_blocks=_FINALITY_EVERY_BLOCKS,
        )
        identity = identity_of(deployed)
        self.prices = build_aggregator(chain_id, settings, prices, dollars)
        watch_prices(self.prices, self.name, metrics)
        core = EngineCore(chain_id, books, self.prices)
        self.keeper: Keeper | None = None
        memory = None
        if store is not None:
            self.keeper = Keeper(
                chain_id=chain_id,
                name=self.name,
                identity=identity,
                core=core,
                books=books,
                window=lambda: self.source.window,
                is_at_rest=lambda: self.runner.is_at_rest,
                saver=store,
                every_s=keep_every_s,
                metrics=metrics,
            )
            resuming = Resuming(
                chain_id=chain_id,
                name=self.name,
                core=core,
                books=books,
                reader=self.reader,
                window=lambda: self.source.window,
                reopen=sink.reopen,
                go_on=sink.go_on,
            )
            memory = Memory(
                chain_id=chain_id,
                name=self.name,
                identity=identity,
                loader=store,
                resuming=resuming,
                keeper=self.keeper,
            )
        self.history: ChainHistory | None = None
        if records is not None:
            chain = Chain(
                chain_id=chain_id,
                name=self.name,
                identities={protocol["kind"]: protocol["positionManager"].lower() for protocol in self.protocols},
                books=books,
                is_at_rest=lambda: self.runner.is_at_rest,
                window=lambda: self.source.window,
                headers=self.reader.headers,
            )
            self.history = build_history(chain, Kept(**history.model_dump(exclude={"enabled"})), records, metrics)
        self.tasks: list[asyncio.Task[None]] = []
        self.runner = ChainRunner(
            name=self.name,
            core=core,
            source=self.source,
            reader=self.reader,
            sink=sink,
            metrics=metrics,
            memory=memory,
            records=None if self.history is None else self.history.recorder,
        )

    def following(self) -> dict[str, Any]:
        """Return how the head is followed: what is announced, what is final, and where each node is."""
        report: dict[str, Any] = {
            "behindBlocks": self.runner.behind_blocks,
            "subscriptions": self.source.subscriptions,
            "nodes": {node: place.value for node, place in self.source.places().items()},
            "endpoints": self.reader.describe(),
        }
        for tag, header in self.source.tags.items():
            report[tag] = {"number": header.number, "hash": header.hash}
        if self.history is not None:
            report["history"] = self.history.writer.report()
        return report

    def _describe(self, kind: str, factory: str, manager: str, staker: str | None) -> None:
        contracts = {"factory": factory, "positionManager": manager}
        if staker is not None:
            contracts["staker"] = staker
        self.protocols.append({"kind": kind} | {name: checksum(Address(at)) for name, at in contracts.items()})


def identity_of(protocols: Iterable[ProtocolSettings]) -> str:
    """Return what kept facts depend on: what is kept of other contracts knows other positions by the same ids."""
    contracts = [
        (each.kind, each.factory, each.position_manager, each.init_code_hash or "", each.staker or "")
        for each in protocols
    ]
    return orjson.dumps(sorted([text.lower() for text in each] for each in contracts)).decode()


def _build(
    settings: Settings, ids: list[ChainId], metrics: Metrics, store: "Store | None"
) -> tuple[list[_Chain], list[PriceFetcher], Hub, web.Application, Health, Sockets]:
    router = _Router()
    limits = settings.limits
    hub = Hub(router, Limits(**limits.model_dump()), metrics)
    records = _open_history(settings, store)
    chains = [
        _Chain(
            chain_settings,
            chain_id,
            hub,
            metrics,
            settings.prices,
            store,
            settings.store.every_s,
            records,
            settings.history,
        )
        for chain_settings, chain_id in zip(settings.chains, ids, strict=True)
    ]
    router.runners = {chain.chain_id: chain.runner for chain in chains}
    served: Mapping[int, ServedChain] = {
        chain.chain_id: ServedChain(chain.chain_id, chain.name, chain.protocols, chain.head_limit_s, chain.following)
        for chain in chains
    }
    by_id = {chain.chain_id: chain for chain in chains}
    earnings = BookEarnings(
        {chain.chain_id: chain.books for chain in chains}, lambda chain_id: by_id[chain_id].prices.prices
    )
    past: Histories | None = None
    if records is not None:
        kept = {chain.chain_id: chain.history for chain in chains if chain.history is not None}
        past = Histories(records, kept, settings.history.every_s)
    fetchers, prices = _fetchers(settings, chains, metrics)
    built = build_application(hub, served, settings, metrics, __version__, prices, earnings, past)
    return chains, fetchers, hub, *built


def _fetchers(
    settings: Settings, chains: list[_Chain], metrics: Metrics
) -> tuple[list[PriceFetcher], Callable[[], dict[str, Any]]]:
    """Return what fetches prices over HTTP, and a report of how all sources of prices are doing."""
    fetchers = build_fetchers(settings.prices, {chain.chain_id: chain.prices for chain in chains}, metrics)

    def prices() -> dict[str, Any]:
        sources = [fetcher.describe() for fetcher in fetchers]
        return {"sources": sources, "chains": {str(chain.chain_id): chain.prices.describe() for chain in chains}}

    return fetchers, prices


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
        match settings.role:
            case "all":
                await _run_all(settings, stop, on_ready)
            case "engine":
                await _run_engine(settings, stop, on_ready)
            case "gateway":
                await run_gateway(settings, stop, on_ready)
            case _:
                assert_never(settings.role)


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
                tasks = [group.create_task(tick_forever(hub), name="tick"), *_follow(group, chains, fetchers)]
                await stop.wait()
                health.is_draining = sockets.is_draining = True
                log.info("shutting down", connections=sum(1 for _ in hub.sessions))
                kept = (_finish(chain, partial(hub.kept_streams, chain.chain_id)) for chain in chains)
                await asyncio.gather(drain(hub), *kept)
                for task in tasks:
                    task.cancel()
    finally:
        await _close(chains, store)


async def _run_engine(settings: Settings, stop: asyncio.Event, on_ready: OnReady | None) -> None:
    """Compute, and publish over Redis; the port has health and metrics only."""
    metrics = Metrics()
    store = await _open_store(settings)
    chains: list[_Chain] = []
    broker = None
    try:
        broker = await open_broker(settings)
        leads = [Lead(chain_id, settings.shards) for chain_id in await fetch_chain_ids(settings)]
        records = _open_history(settings, store)
        served: dict[int, ServedChain] = {}
        for chosen, lead in zip(settings.chains, leads, strict=True):
            every_s = settings.store.every_s
            chain = _Chain(
                chosen, lead.chain_id, lead, metrics, settings.prices, store, every_s, records, settings.history
            )
            report = partial(_both, chain, lead)
            about = ServedChain(chain.chain_id, chain.name, chain.protocols, chain.head_limit_s, report)
            await claim_shards(broker, chain.chain_id, chain.name, settings.shards.count)
            lead.begin(chain.name, about.kinds, chain.runner, broker, metrics)
            served[chain.chain_id] = about
            chains.append(chain)
        fetchers, prices = _fetchers(settings, chains, metrics)
        health = Health(Leads(leads), served, metrics, prices, process_of(settings))
        app = web.Application(middlewares=[problem_middleware(metrics, settings.origins, Proxies(()))])
        app.add_routes(health.routes())
        async with listening(app, settings, metrics, health, on_ready) as url:
            log.info("serving", role="engine", url=url, chains=[chain.name for chain in chains])
            async with asyncio.TaskGroup() as group:
                tasks = _follow(group, chains, fetchers)
                tasks += lead_all(group, leads, broker, served, settings.shards.count)
                await stop.wait()
                health.is_draining = True
                log.info("shutting down")
                # Streams never go on in another engine: its run is a new one.
                await asyncio.gather(*(_finish(chain, dict) for chain in chains))
                for task in tasks:
                    task.cancel()
    finally:
        await _close(chains, store)
        if broker is not None:
            await broker.aclose()


def _both(chain: _Chain, lead: Lead) -> dict[str, Any]:
    return {**chain.following(), **lead.report()}


def _follow(group: asyncio.TaskGroup, chains: list[_Chain], fetchers: list[PriceFetcher]) -> list[asyncio.Task[None]]:
    """Start what follows the chains; return what ends after them."""
    tasks = []
    for chain in chains:
        chain.tasks.append(group.create_task(chain.reader.run(), name=f"endpoints {chain.name}"))
        chain.tasks.append(group.create_task(chain.source.run(), name=f"source {chain.name}"))
        chain.tasks.append(group.create_task(chain.runner.run(), name=f"engine {chain.name}"))
        if chain.keeper is not None:
            tasks.append(group.create_task(chain.keeper.run(), name=f"keeper {chain.name}"))
        if chain.history is not None:
            recorder, writer = chain.history.recorder, chain.history.writer
            chain.tasks.append(group.create_task(recorder.run(), name=f"recorder {chain.name}"))
            chain.tasks.append(group.create_task(chain.history.seeding.run(), name=f"seeding {chain.name}"))
            tasks.append(group.create_task(writer.run(), name=f"history {chain.name}"))
    return tasks + [group.create_task(fetcher.run(), name="prices over HTTP") for fetcher in fetchers]


async def _close(chains: list[_Chain], store: "Store | None") -> None:
    for chain in chains:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await chain.reader.close()
    if store is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await store.close()


async def _open_store(settings: Settings) -> "Store | None":
    if not settings.store.enabled:
        return None
    # Imported only here: SQLAlchemy takes a third of a second, and not everyone has a store.
    from .store.opening import open_store

    url = settings.store.url
    return await open_store(None if url is None else url.get_secret_value(), settings.store.path, os.environ)


def _open_history(settings: Settings, store: "Store | None") -> "HistoryStore | None":
    if store is None or not settings.history.enabled:
        return None
    from .store.history import HistoryStore

    return HistoryStore(store.database)


async def _finish(chain: _Chain, streams: Callable[[], Mapping[str, KeptStream]]) -> None:
    """Stop following a chain, between two blocks if it gets there soon, and keep what it was then."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _REST_S
    while not chain.runner.is_at_rest and loop.time() < deadline:
        await asyncio.sleep(0.01)
    is_at_rest = chain.runner.is_at_rest
    # From here on nothing is published: what is kept now is all that any client can have.
    for task in chain.tasks:
        task.cancel()
    head = chain.runner.head
    if chain.keeper is not None and head is not None and is_at_rest:
        try:
            async with asyncio.timeout(_KEEP_S):
                await chain.keeper.finish(head, streams())
        except TimeoutError:
            log.warning("last checkpoint took too long", chain=chain.name)
    if chain.history is not None:
        try:
            async with asyncio.timeout(_RECORD_S):
                await chain.history.writer.finish()
        except TimeoutError:
            log.warning("last records took too long", chain=chain.name)
