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

from bench.fanout_rtserver import CHAIN, KIND, STATE_BYTES
from bench.peers.control import obey, say
from rtserver.broker.redis_link import RedisBroker
from rtserver.domain.chain import Header
from rtserver.domain.diff import EncodedPatch, State
from rtserver.domain.ids import BlockHash
from rtserver.domain.update import BlockUpdate
from rtserver.edge.rest import ServedChain
from rtserver.leads import Lead, lead_all
from rtserver.obs.collector import COLLECTOR
from rtserver.obs.metrics import Metrics
from rtserver.protocols.channels import Channel

__all__ = ["ScriptedEngine"]

_NAME: Final = "bench"
_HOUR_S: Final = 3600.0
# Channels that are wished for within this time are opened in one step, as the engine's reads have it.
_READ_S: Final = 0.01


class ScriptedEngine:
    """Opens what is wished for, changes what it is told to."""

    def __init__(self, lead: Lead) -> None:
        self._lead = lead
        self._open: list[str] = []
        self._wanted: list[str] = []
        self._number = 0

    def start(self) -> None:
        """Say the first block: without one an engine takes no lease."""
        self._lead.publish(BlockUpdate(chain_id=CHAIN, header=self._header()))

    def want(self, channel: Channel) -> None:
        """Open a channel, together with all that are wished for at the same time."""
        if not self._wanted:
            asyncio.get_running_loop().call_later(_READ_S, self._open_wanted)
        self._wanted.append(channel.name)

    def unwant(self, channel: Channel) -> None:
        """Close a channel."""
        self._open = [name for name in self._open if name != channel.name]

    def _header(self) -> Header:
        number = self._number
        return Header(
            number=number,
            hash=BlockHash(f"0x{number:08x}"),
            parent_hash=BlockHash(f"0x{max(number - 1, 0):08x}"),
            # The load generator takes a frame's age from it.
            timestamp=time.monotonic_ns(),
            logs_bloom=0,
        )

    def _open_wanted(self) -> None:
        wanted, self._wanted = self._wanted, []
        self._open += wanted
        opened: dict[str, State] = {
            name: {name.rpartition(":")[2]: {"pad": "x" * STATE_BYTES, "tokenId": name}} for name in wanted
        }
        self._lead.publish(BlockUpdate(chain_id=CHAIN, header=self._header(), is_new_head=False, opened=opened))

    def publish(self, pad: int) -> None:
        """Change every open channel in one block, each by a patch of its own."""
        self._number += 1
        header = self._header()
        patch: EncodedPatch = (1, f'{{"pad":"{"x" * pad}"}}')
        patched = {name: {name.rpartition(":")[2]: patch} for name in self._open}
        self._lead.publish(BlockUpdate(chain_id=CHAIN, header=header, patched=patched))

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
    engine = ScriptedEngine(lead)
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
