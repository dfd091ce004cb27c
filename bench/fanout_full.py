"""The server of the fan-out bench's scenario `full`: the real book, engine and hub on a chain in memory.

What a node would answer is made up in time that is not counted; everything else of a block is.
"""

import asyncio
import os
import sys
import time
from dataclasses import replace
from typing import Any, Final

import uvloop

from bench.common_chain import FACTORY, MANAGER, STABLES, InMemoryChain
from bench.common_script import CHAIN, KIND
from bench.fanout_rtserver import open_limits, serve
from bench.peers.control import say
from rtserver.engine.core import EngineCore
from rtserver.hub.hub import Hub
from rtserver.obs.huge_pages import ask
from rtserver.obs.metrics import Metrics
from rtserver.protocols.registry import adapters
from rtserver.worth.aggregator import Aggregator

# Positions loaded in one go, as in the server.
_LOAD_BUDGET: Final = 1000
# While clients join: how often what they asked for is opened.
_OPEN_EVERY_S: Final = 0.05
_POSITIONS_AN_OWNER: Final = 10


class _Engine:
    def __init__(self, positions: int) -> None:
        owners = max(positions // _POSITIONS_AN_OWNER, 1)
        self.chain = InMemoryChain(positions=positions, owners=owners, in_range=1.0, seed=1)
        self.metrics = Metrics()
        book = adapters()[KIND].build(CHAIN, FACTORY, MANAGER, None, STABLES)
        prices = Aggregator(CHAIN, stablecoins=STABLES, clock=time.time)
        self.core = EngineCore(CHAIN, {KIND: book}, prices)
        self.hub = Hub(self.core, open_limits(), self.metrics)
        self.core.fold(self.chain.head().hash, [])
        self._is_settled = False

    async def open_forever(self) -> None:
        """Open what clients ask for."""
        while True:
            await asyncio.sleep(_OPEN_EVERY_S)
            if not self.core.is_opening:
                continue
            while (plan := self.core.plan(_LOAD_BUDGET)).calls:
                self.core.absorb(plan, self.chain.answer(plan.calls))
                await asyncio.sleep(0)
            while (wanted := self.core.history_query()) is not None:
                book, query = wanted
                book.absorb_history(query, [])
            self.hub.publish(self.core.evaluate(self.chain.head(), None, is_new_head=True))

    async def handle(self, command: dict[str, Any]) -> None:
        """Mine a block that moves every pool, and deliver it."""
        if command["do"] != "block":
            raise ValueError(f"no command {command}")
        if not self._is_settled:
            # As a server that has run for a minute: not amid a block, whenever that minute is over.
            self._is_settled = True
            ask()
        logs = self.chain.mine()
        head = self.chain.head()
        answering = 0
        cpu = time.process_time_ns()
        started = time.monotonic_ns()
        self.core.fold(head.hash, logs)
        while not self.core.is_settled():
            plan = self.core.plan(0)
            asked = time.monotonic_ns()
            results = self.chain.answer(plan.calls)
            answering += time.monotonic_ns() - asked
            self.core.absorb(plan, results)
        read = time.monotonic_ns()
        # The frame says when the block's work began, as if the node had answered at once.
        header = replace(head, timestamp=started + answering)
        update = self.core.evaluate(header, None, is_new_head=True)
        evaluated = time.monotonic_ns()
        changed = sum(len(batch.texts) for batch in update.lone)
        counted = time.monotonic_ns()
        self.hub.publish(update)
        published = time.monotonic_ns()
        self.core.forget([head])
        say(
            "done",
            read_ms=(read - started - answering) / 1e6,
            evaluate_ms=(evaluated - read) / 1e6,
            publish_ms=(published - counted) / 1e6,
            cpu_ms=(time.process_time_ns() - cpu) / 1e6,
            changed=changed,
        )


async def _main(port: int) -> None:
    engine = _Engine(int(os.environ["BENCH_POSITIONS"]))
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(engine.open_forever())
        await serve(port, engine.hub, engine.metrics, engine.handle)
        opening.cancel()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
