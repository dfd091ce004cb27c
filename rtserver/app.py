"""The composition root: builds the parts, joins them, runs them in one TaskGroup, and takes them down in order."""

import asyncio
import errno
import gc
import os
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog
from aiohttp import web

from . import __version__
from .chain.linker import Linker
from .chain.reader import ChainReader
from .chain.rpc import endpoint_name, make_endpoint
from .chain.source import ChainSource
from .config import ChainSettings, HistorySettings, PriceSettings, ProtocolSettings, Settings
from .domain.errors import ConfigError, RtserverError
from .domain.ids import Address, ChainId
from .edge.connections import EdgeRunner
from .edge.docs import docs_routes
from .edge.earnings import BookEarnings
from .edge.health import Health
from .edge.history import HistoryApi
from .edge.pages import page_routes
from .edge.prices import PricesApi
from .edge.problems import problem_middleware
from .edge.proxies import Proxies
from .edge.rest import Rest, ServedChain
from .edge.ws import Sockets, tick_forever
from .engine.core import EngineCore
from .engine.keeping import Keeper
from .engine.memory import Memory
from .engine.resuming import Resuming
from .engine.runner import ChainRunner
from .history.build import Chain, Kept, build_history
from .history.reading import ChainHistory, Histories
from .hub.hub import Hub
from .hub.limits import Limits
from .obs.metrics import Metrics
from .protocols.addresses import checksum, parse_address
from .protocols.base import Book
from .protocols.channels import Channel
from .protocols.registry import adapters
from .wire.codes import CloseCode
from .worth.build import build_aggregator, build_fetchers, hops_of, watch_prices
from .worth.http_prices import PriceFetcher

if TYPE_CHECKING:
    from .store.history import HistoryStore
    from .store.store import Store

__all__ = ["COLLECTOR", "run_server"]

log = structlog.get_logger(__name__)

# Garbage collection. A block makes tens of thousands of short-lived tuples and no cycles; with Python's default
# (700) the collector walks the young generation 70 times as often, for nothing: a third of a large block's time.
COLLECTOR: Final = (50_000, 20, 50)
# Before anything starts: an endpoint that takes longer is asked for its chain by nobody.
_ASK_ID_S: Final = 5.0
# Two calls beside the blocks, for what is safe and finalized.
_FINALITY_EVERY_BLOCKS: Final = 16
# After SIGTERM: time for the last frames to leave. All of shutdown fits into five seconds.
_DRAIN_S: Final = 2.0
# After SIGTERM: time for the step that is being read, and for the last checkpoint.
_REST_S: Final = 0.5
_KEEP_S: Final = 1.5
# And for the records that wait.
_RECORD_S: Final = 0.5
# Clients that were said bye to come back spread over this time.
_BYE_SPREAD_MS: Final = 5000
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


class _Chain:
    """The parts of one chain."""

    def __init__(
        self,
        settings: ChainSettings,
        chain_id: ChainId,
        hub: Hub,
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
        self._deployment: list[tuple[str, ...]] = []
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
                deviation_bps=deviation_bps,
            )
            self._describe(protocol.kind, protocol.factory, manager, code_hash or "", staker)
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
        # What is kept of another deployment is of no use: it knows other positions by the same ids.
        identity = orjson.dumps(sorted(self._deployment)).decode()
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
                reopen=hub.reopen,
                go_on=hub.go_on,
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
            sink=hub,
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

    def _describe(self, kind: str, factory: str, manager: str, code_hash: str, staker: str | None) -> None:
        self._deployment.append((kind, factory.lower(), manager.lower(), code_hash.lower()))
        contracts = {"factory": factory, "positionManager": manager}
        if staker is not None:
            contracts["staker"] = staker
        self.protocols.append({"kind": kind} | {name: checksum(Address(at)) for name, at in contracts.items()})


async def _chain_ids(settings: Settings) -> list[ChainId]:
    """Return every chain's id; each endpoint that answers has to report the same.

    A chain whose id the settings name may have no endpoint that answers yet.

    Raises:
        ConfigError: An endpoint reports another chain, none answers for a chain without an id, or two are one.
    """
    ids = [ChainId(chain_id) for chain_id in await asyncio.gather(*map(_chain_id, settings.chains))]
    if len(set(ids)) != len(ids):
        raise ConfigError(f"each chain may be named once; got {', '.join(map(str, ids))}")
    return ids


async def _chain_id(chain: ChainSettings) -> int:
    answers = await asyncio.gather(*(_reported_id(url, chain) for url in chain.urls))
    known = chain.id
    reasons = []
    for url, answer in zip(chain.urls, answers, strict=True):
        if isinstance(answer, RtserverError):
            reasons.append(str(answer))
        elif known is None:
            known = answer
        elif answer != known:
            said = "the settings say" if chain.id is not None else "another endpoint says"
            raise ConfigError(f"{endpoint_name(url)} is an endpoint of chain {answer}, {said} {known}")
    if known is None:
        names = ", ".join(map(endpoint_name, chain.urls))
        raise ConfigError(f"{names}: asked for its chain id, got no answer ({reasons[0]})")
    return known


async def _reported_id(url: str, chain: ChainSettings) -> int | RtserverError:
    endpoint = make_endpoint(url, timeout_s=min(chain.rpc_timeout_s, _ASK_ID_S))
    # With metrics of its own: this reader is gone before anybody looks, and what it is a reader of is not known yet.
    reader = ChainReader(chain.name or "?", [endpoint], Metrics())
    try:
        return await reader.chain_id()
    except RtserverError as error:
        return error
    finally:
        await reader.close()


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
    books, by_id = {chain.chain_id: chain.books for chain in chains}, {chain.chain_id: chain for chain in chains}
    earnings = BookEarnings(books, lambda chain_id: by_id[chain_id].prices.prices)
    rest = Rest(hub, served, __version__, settings.dashboard.owners, earnings)
    fetchers = build_fetchers(settings.prices, {chain.chain_id: chain.prices for chain in chains}, metrics)

    def prices() -> dict[str, Any]:
        sources = [fetcher.describe() for fetcher in fetchers]
        return {"sources": sources, "chains": {str(chain.chain_id): chain.prices.describe() for chain in chains}}

    health = Health(hub, served, metrics, prices)
    past: Histories | None = None
    if records is not None:
        kept = {chain.chain_id: chain.history for chain in chains if chain.history is not None}
        past = Histories(records, kept, settings.history.every_s)
    sockets = Sockets(hub, rest, settings.origins)
    app = web.Application(
        middlewares=[problem_middleware(metrics, settings.origins, Proxies(settings.trusted_proxies))]
    )
    app.add_routes(
        [*rest.routes(), *PricesApi(rest).routes(), *health.routes(), *sockets.routes(), *docs_routes(__version__)]
    )
    app.add_routes(HistoryApi(rest, past).routes())
    if settings.dashboard.enabled:
        app.add_routes(page_routes())
    return chains, fetchers, hub, app, health, sockets


async def run_server(settings: Settings, stop: asyncio.Event, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until `stop` is set, then say bye and close everything within five seconds.

    Args:
        settings: All settings.
        stop: Set from outside, by a signal.
        on_ready: Called with the address once clients can connect.

    Raises:
        ConfigError: A port is taken, or a chain can't be what the settings say.
    """
    gc.set_threshold(*COLLECTOR)
    metrics = Metrics()
    # First what can be wrong with the settings alone.
    store = await _open_store(settings)
    ids = await _chain_ids(settings)
    chains, fetchers, hub, app, health, sockets = _build(settings, ids, metrics, store)
    runner = EdgeRunner(
        app, limits=hub.limits, metrics=metrics, proxies=Proxies(settings.trusted_proxies), shutdown_timeout=1.0
    )
    await runner.setup()
    site = web.TCPSite(runner, settings.host, settings.port, backlog=4096)
    try:
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(_explain_bind(error, settings)) from error
        address = runner.addresses[0]
        url = f"http://{address[0] if ':' not in address[0] else f'[{address[0]}]'}:{address[1]}"
        log.info("serving", url=url, chains=[chain.name for chain in chains])
        if on_ready is not None:
            on_ready(url)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(tick_forever(hub), name="tick")]
            for chain in chains:
                chain.tasks.append(group.create_task(chain.reader.run(), name=f"endpoints {chain.name}"))
                chain.tasks.append(group.create_task(chain.source.run(), name=f"source {chain.name}"))
                chain.tasks.append(group.create_task(chain.runner.run(), name=f"engine {chain.name}"))
                if chain.keeper is not None:
                    tasks.append(group.create_task(chain.keeper.run(), name=f"keeper {chain.name}"))
                if chain.history is not None:
                    past = chain.history
                    chain.tasks.append(group.create_task(past.recorder.run(), name=f"recorder {chain.name}"))
                    chain.tasks.append(group.create_task(past.seeding.run(), name=f"seeding {chain.name}"))
                    tasks.append(group.create_task(past.writer.run(), name=f"history {chain.name}"))
            tasks += [group.create_task(fetcher.run(), name="prices over HTTP") for fetcher in fetchers]
            await stop.wait()
            health.is_draining = sockets.is_draining = True
            log.info("shutting down", connections=sum(1 for _ in hub.sessions))
            await asyncio.gather(_drain(hub), *(_finish(chain, hub) for chain in chains))
            for task in tasks:
                task.cancel()
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await runner.cleanup()
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


async def _finish(chain: _Chain, hub: Hub) -> None:
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
                await chain.keeper.finish(head, hub.kept_streams(chain.chain_id))
        except TimeoutError:
            log.warning("last checkpoint took too long", chain=chain.name)
    if chain.history is not None:
        try:
            async with asyncio.timeout(_RECORD_S):
                await chain.history.writer.finish()
        except TimeoutError:
            log.warning("last records took too long", chain=chain.name)


async def _drain(hub: Hub) -> None:
    """Say bye to every client and give the last bytes time to leave."""
    hub.say_bye(CloseCode.SHUTDOWN, lambda: random.randrange(_BYE_SPREAD_MS))
    deadline = asyncio.get_running_loop().time() + _DRAIN_S
    while any(True for _ in hub.sessions) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)
    for session in list(hub.sessions):
        session.outlet.abort()


def _explain_bind(error: OSError, settings: Settings) -> str:
    where = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: choose another port with --port or RTSERVER_PORT"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}: not allowed to listen there; ports under 1024 need privileges, choose another with --port"
    return f"{where}: cannot listen there ({error.strerror}); check --host"
