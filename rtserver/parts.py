"""The parts of one chain, built from its settings and joined: reader, source, books, engine, keeper, history.

And how they are run, and taken down in order. Who takes the steps is not known here.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson
import structlog

from .chain.linker import Linker
from .chain.reader import ChainReader
from .chain.rpc import make_endpoint
from .chain.source import ChainSource
from .config import ChainSettings, HistorySettings, PriceSettings, ProtocolSettings
from .domain.errors import ConfigError
from .domain.ids import Address, ChainId
from .domain.shards import named
from .domain.update import BlockUpdate
from .engine.core import EngineCore
from .engine.keeping import Keeper
from .engine.memory import Memory
from .engine.resuming import Resuming
from .engine.runner import ChainRunner
from .history.build import Chain, Kept, build_history
from .history.reading import ChainHistory
from .obs.metrics import Metrics
from .protocols.addresses import checksum, parse_address
from .protocols.base import Book
from .protocols.channels import Channel
from .protocols.registry import adapters
from .store.values import KeptStream
from .worth.build import build_aggregator, hops_of, watch_prices
from .worth.http_prices import PriceFetcher
from .worth.then import PricesThen

if TYPE_CHECKING:
    from .store.history import HistoryStore
    from .store.store import Store

__all__ = ["ChainParts", "Sink", "close", "finish", "follow", "identity_of"]

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


class Sink(Protocol):
    """Where a chain's steps go, and from where its wishes come: the hub, or an engine's lead."""

    def publish(self, update: BlockUpdate) -> None:
        """Take a step."""

    def reopen(self, channel: Channel) -> None:
        """Wish for a channel that an earlier process had open."""

    def go_on(self, streams: Mapping[str, KeptStream]) -> None:
        """Take an earlier process' streams."""


class ChainParts:
    """The parts of one chain."""

    def __init__(
        self,
        settings: ChainSettings,
        chain_id: ChainId,
        sink: Sink,
        metrics: Metrics,
        prices: PriceSettings,
        store: "Store | None",
        keep_every_s: float,
        records: "HistoryStore | None",
        history: HistorySettings,
        charge: Callable[[], str | None],
        label: str,
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
        first_blocks: dict[Address, int] = {}
        self.protocols: list[dict[str, str]] = []
        for protocol in deployed:
            manager = Address(protocol.position_manager)
            staker = None if protocol.staker is None else Address(protocol.staker)
            code_hash = protocol.init_code_hash
            self.books[protocol.kind] = adapters()[protocol.kind].build(
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
        if not self.books:
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
        core = EngineCore(chain_id, self.books, self.prices)
        self.keeper: Keeper | None = None
        memory = None
        if store is not None:
            self.keeper = Keeper(
                chain_id=chain_id,
                name=self.name,
                identity=identity,
                core=core,
                books=self.books,
                window=lambda: self.source.window,
                is_at_rest=lambda: self.runner.is_at_rest,
                saver=store,
                every_s=keep_every_s,
                metrics=metrics,
                charge=charge,
            )
            resuming = Resuming(
                chain_id=chain_id,
                name=self.name,
                core=core,
                books=self.books,
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
                charge=charge,
            )
        self.history: ChainHistory | None = None
        if records is not None:
            chain = Chain(
                chain_id=chain_id,
                name=self.name,
                identities={
                    protocol["kind"]: named(protocol["positionManager"].lower(), label) for protocol in self.protocols
                },
                books=self.books,
                is_at_rest=lambda: self.runner.is_at_rest,
                window=lambda: self.source.window,
                headers=self.reader.headers,
            )
            kept = Kept(**history.model_dump(exclude={"enabled"}))
            self.history = build_history(chain, kept, records, metrics, charge=charge)
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


def follow(
    group: asyncio.TaskGroup, chains: list[ChainParts], fetchers: list[PriceFetcher | PricesThen]
) -> list[asyncio.Task[None]]:
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
    return tasks + [group.create_task(fetcher.run(), name="prices from elsewhere") for fetcher in fetchers]


async def close(chains: list[ChainParts], store: "Store | None") -> None:
    """Close what reads the chains, and the store; what hangs is left."""
    for chain in chains:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await chain.reader.close()
    if store is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await store.close()


async def finish(chain: ChainParts, streams: Callable[[], Mapping[str, KeptStream]]) -> None:
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
