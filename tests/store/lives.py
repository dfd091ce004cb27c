"""Engines that live one after the other on one store: each ends as if it were killed, the next goes on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from chain.world import CHAIN, KIND, World
from chain.world import Keeper as Sink

from rtserver.chain.linker import Linker
from rtserver.chain.reader import ChainReader
from rtserver.chain.rpc import HttpEndpoint
from rtserver.chain.source import ChainSource
from rtserver.demo.lab import Lab
from rtserver.domain.ids import Address, BlockHash, ChainId
from rtserver.engine.core import EngineCore
from rtserver.engine.keeping import Keeper
from rtserver.engine.memory import Memory
from rtserver.engine.resuming import Resuming
from rtserver.engine.runner import ChainRunner
from rtserver.history.build import Chain, Kept, build_history
from rtserver.history.reading import ChainHistory
from rtserver.obs.metrics import Metrics
from rtserver.protocols.base import Call
from rtserver.protocols.registry import adapters
from rtserver.store.database import Database, sqlite_url
from rtserver.store.history import HistoryStore
from rtserver.store.store import Store
from rtserver.store.values import Changes, Checkpoint, KeptStream
from rtserver.worth.aggregator import Aggregator

__all__ = ["Life", "open_life"]

_SELECTORS = {"2f745c59": "enumerate", "70a08231": "balance", "6352211e": "owner", "99fbab88": "position"}


class CountingReader(ChainReader):
    """A reader that counts what the calls ask for."""

    asked: Counter[str]

    async def call(self, calls: Sequence[Call], block: BlockHash, purpose: str) -> list[bytes | None]:
        self.asked.update(_SELECTORS.get(data[:4].hex(), "other") for _, data in calls)
        return await super().call(calls, block, purpose)

    async def history(self, *args: Any, **options: Any) -> Any:
        self.asked["history"] += 1
        return await super().history(*args, **options)


class Vault:
    """The store, noting what was written."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.written: list[Changes] = []
        self.loaded: Checkpoint | None = None
        self._news = asyncio.Event()

    async def load(self, chain_id: ChainId, identity: str, *, takes_over: bool) -> Checkpoint | None:
        self.loaded = await self._store.load(chain_id, identity, takes_over=takes_over)
        return self.loaded

    async def save(self, chain_id: ChainId, identity: str, changes: Changes) -> None:
        await self._store.save(chain_id, identity, changes)
        self.written.append(changes)
        self._news.set()

    async def until(self, block_hash: str) -> None:
        async with asyncio.timeout(20):
            while not self.written or self.written[-1].window[-1].hash != block_hash:
                self._news.clear()
                await self._news.wait()


class Life(World):
    """One engine, what it kept, and what it asked the node for."""

    def __init__(self, vault: Vault, reader: CountingReader, *parts: Any) -> None:
        super().__init__(*parts)
        self.vault = vault
        self.asked = reader.asked
        self.history: ChainHistory | None = None
        self.streams: Mapping[str, KeptStream] = {}

    async def kept(self) -> None:
        """Wait until everything up to the chain's head is in the store; a block makes sure that all wishes are."""
        await self.lab.mine()
        await self.settled()
        await self.vault.until(self.keeper.head)

    async def loaded(self, names: Sequence[str]) -> None:
        """Wait until these channels are open."""
        await self.keeper.until(lambda: all(name in self.keeper.states for name in names))

    async def recorded(self) -> None:
        """Wait until everything up to the chain's head is recorded and written."""
        await self.settled()
        assert self.history is not None
        async with asyncio.timeout(20):
            while True:
                # What is due is taken a part at a time, each in a turn of the loop; then it is gathered for a moment.
                for _ in range(50):
                    await asyncio.sleep(0)
                if self.history.writer.is_proved and self.history.backlog.is_settled:
                    return
                await asyncio.sleep(0.01)

    async def assert_whole(self) -> None:
        """The state is the chain's, and the same as that of an engine that starts now and cold."""
        await self.assert_exact()
        await self.assert_same_owners()
        fresh = await self.fresh()
        assert fresh.states == self.keeper.states


@asynccontextmanager
async def open_life(
    lab: Lab, place: Path | str, *, linker: Linker | None = None, staking: bool = False, kept: Kept | None = None
) -> AsyncIterator[Life]:
    """Run an engine that keeps every step and goes on from what is there; it ends without a goodbye.

    `place` is a file, or a database's URL. With `kept` it has a history there.
    """
    metrics = Metrics()
    reader = CountingReader("local", [HttpEndpoint(lab.node.http_url, timeout_s=10)], metrics)
    reader.asked = Counter()
    source = ChainSource(
        chain_id=CHAIN,
        name="local",
        ws_urls=[lab.node.ws_url],
        reader=reader,
        silence_s=60.0,
        connect_timeout_s=5,
        metrics=metrics,
        linker=linker or Linker(),
    )
    dollars = [Address(token.lower()) for token in lab.deployment.stablecoins]
    factory, manager = (Address(text.lower()) for text in (lab.deployment.factory, lab.deployment.position_manager))
    staker = Address(lab.deployment.staker.lower()) if staking else None
    books = {KIND: adapters()[KIND].build(CHAIN, factory, manager, None, dollars, staker=staker)}
    core = EngineCore(CHAIN, books, Aggregator(CHAIN, stablecoins=dollars, clock=time.time))
    sink = Sink()
    store = Store(Database(sqlite_url(place) if isinstance(place, Path) else place))
    vault = Vault(store)
    common: dict[str, Any] = {"chain_id": CHAIN, "name": "local"}
    keeper = Keeper(
        **common, identity="test", core=core, books=books, window=lambda: source.window, saver=vault, every_s=0.0,
        is_at_rest=lambda: runner.is_at_rest,
        metrics=metrics,
    )  # fmt: skip
    streams: dict[str, KeptStream] = {}
    resuming = Resuming(
        **common, core=core, books=books, reader=reader,
        window=lambda: source.window, reopen=lambda channel: runner.want(channel), go_on=streams.update,
    )  # fmt: skip
    memory = Memory(**common, identity="test", loader=vault, resuming=resuming, keeper=keeper)
    history = None
    if kept is not None:
        chain = Chain(
            **common, identities={KIND: manager}, books=books, is_at_rest=lambda: runner.is_at_rest,
            window=lambda: source.window, headers=reader.headers,
        )  # fmt: skip
        history = build_history(chain, kept, HistoryStore(store.database), metrics, gather_s=0.01)
    runner = ChainRunner(
        name="local", core=core, source=source, reader=reader, sink=sink, metrics=metrics, memory=memory,
        records=None if history is None else history.recorder,
    )  # fmt: skip
    life = Life(vault, reader, lab, runner, sink, reader, metrics, source)
    life.streams = streams
    life.staking = staking
    life.book = books[KIND]
    life.history = history
    parts: list[Any] = [source, runner, keeper]
    if history is not None:
        parts += [history.recorder, history.writer, history.seeding]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part.run()) for part in parts]
        try:
            await sink.until(lambda: sink.updates)
            await source.subscribed()
            yield life
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)  # a read in flight ends before its connection does
            await life.close()
            await reader.close()
            await store.close()
