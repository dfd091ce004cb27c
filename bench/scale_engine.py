"""The role `engine` as a process of its own, fed by a script instead of a chain.

Everything from `Ledger.take` to Redis is what `rtserver serve --role engine` runs, lease, wishes and all; the script
only says which channels change. What computing costs is not in it: that has no gateways and no clients.

    python -m bench.scale_engine REDIS_URL
"""

import asyncio
import gc
import sys
import time
from typing import Any, Final

import structlog
import uvloop

from bench.common_script import CHAIN, KIND, ScriptedEngine
from bench.peers.control import obey, say
from rtserver.broker.redis_link import RedisBroker
from rtserver.domain.update import BlockUpdate
from rtserver.edge.rest import ServedChain
from rtserver.leads import Lead, lead_all
from rtserver.obs.collector import COLLECTOR
from rtserver.obs.metrics import Metrics

__all__ = ["LeadingEngine"]

_NAME: Final = "bench"
_HOUR_S: Final = 3600.0


class LeadingEngine(ScriptedEngine):
    """One in front of Redis."""

    def __init__(self, lead: Lead) -> None:
        super().__init__(lead.publish)
        self._lead = lead

    def start(self) -> None:
        """Say the first block: without one an engine takes no lease."""
        self._lead.publish(BlockUpdate(chain_id=CHAIN, header=self.header()))

    async def handle(self, command: dict[str, Any]) -> None:
        """Carry out one of the bench's commands."""
        if command.get("do") == "stats":
            say("stats", channels=len(self._open), **self._lead.report())
            return
        interval_s = float(command["interval_s"])
        started = time.monotonic()
        for index in range(int(command["count"])):
            await asyncio.sleep(max(started + index * interval_s - time.monotonic(), 0))
            self.publish(int(command["pad"]))
        say("done", count=command["count"])


async def _main(url: str) -> None:
    # The standard output is for the bench.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    gc.set_threshold(*COLLECTOR)
    broker = RedisBroker(url)
    lead = Lead(CHAIN)
    engine = LeadingEngine(lead)
    lead.begin(_NAME, frozenset({KIND}), engine, broker, Metrics())
    engine.start()
    protocol = {"kind": KIND, "factory": "0x" + "0" * 40, "positionManager": "0x" + "0" * 40}
    served: dict[int, ServedChain] = {CHAIN: ServedChain(CHAIN, _NAME, [protocol], _HOUR_S)}
    async with asyncio.TaskGroup() as group:
        tasks = lead_all(group, [lead], broker, served, 1)
        await obey(0, engine.handle)
        for task in tasks:
            task.cancel()
    await broker.aclose()


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
