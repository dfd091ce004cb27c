"""rtserver's own socket and hub as a process of its own, fed by a script instead of a chain.

Everything from `Hub.publish` to the transport is what `rtserver serve` runs; the script only says which
channels change. Limits that would turn a bench away are wide open, and heartbeats are out of the way.

    python -m bench.fanout_rtserver PORT
"""

import asyncio
import gc
import sys
import time
from typing import Any, Final

import structlog
import uvloop
from aiohttp import web

from bench.common_counters import segments_sent
from bench.common_script import CHAIN, KIND, ScriptedEngine
from bench.peers.control import obey, say
from rtserver.edge.budgets import local_budgets
from rtserver.edge.connections import EdgeRunner
from rtserver.edge.problems import problem_middleware
from rtserver.edge.proxies import Proxies
from rtserver.edge.rest import Rest, ServedChain
from rtserver.edge.ws import Sockets, tick_forever
from rtserver.hub.hub import Hub
from rtserver.hub.limits import Limits
from rtserver.obs.collector import COLLECTOR
from rtserver.obs.huge_pages import ask_forever
from rtserver.obs.metrics import Metrics
from rtserver.protocols.channels import Channel

__all__ = ["open_limits", "serve"]

_HOUR_S: Final = 3600.0


def open_limits() -> Limits:
    """Return limits that no bench reaches, and heartbeats that don't fall into another server's turn."""
    wide: dict[str, Any] = {"heartbeat_s": _HOUR_S, "pong_s": _HOUR_S, "load_s": 120.0}
    for name in Limits.__struct_fields__:
        if name.startswith(("connections", "messages_per", "burst", "loads")):
            wide[name] = 10_000_000
    return Limits(**wide)


class Script(ScriptedEngine):
    """One in front of a hub, which can also tell frames of a length."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.hub = Hub(self, open_limits(), self.metrics)
        super().__init__(self.hub.publish)
        self.loads = 0
        self._pad = 0
        # Length of a message → padding that makes it so.
        self._pads: dict[int, int] = {}

    def want(self, channel: Channel) -> None:
        """Count a cold channel, and note it."""
        self.loads += 1
        super().want(channel)

    def publish_sized(self, size: int) -> None:
        """The same, with the frame's text as close to `size` bytes as the one before tells how to make it."""
        known = self._pads.get(size)
        if known is not None:
            # Reading our own counters costs more than some broadcasts: only until the size is found.
            self.publish(known)
            return
        before = self._written()
        self.publish(self._pad)
        frames, written = (now - then for now, then in zip(self._written(), before, strict=True))
        if frames:
            header = 2 if size < 126 else 4
            excess = round(written / frames) - header - size
            if excess > max(self._pad, size // 10):
                raise ValueError(f"a block frame has {size + excess} bytes before it says anything")
            if excess == 0 or self._pad == 0 < excess:
                self._pads[size] = self._pad
            self._pad = max(self._pad - excess, 0)

    def _written(self) -> tuple[float, float]:
        value = self.metrics.registry.get_sample_value
        return value("rtserver_frames_total") or 0.0, value("rtserver_frame_bytes_total") or 0.0

    async def handle(self, command: dict[str, Any]) -> None:
        """Carry out one of the bench's commands."""
        if command.get("do") == "stats":
            lagging = self.metrics.registry.get_sample_value("rtserver_lagging_total")
            sessions: list[Any] = list(self.hub.sessions)
            say(
                "stats",
                loads=self.loads,
                lagging=lagging,
                lagging_now=sum(session.lag_since is not None for session in sessions),
                segments=sum(segments_sent(session.outlet.get_extra_info("socket")) for session in sessions),
                unsent=max((session.outlet.get_write_buffer_size() for session in sessions), default=0),
                channels=len(self._open),
                seq=self._number,
            )
            return
        interval_s = float(command["interval_s"])
        started = time.monotonic()
        for index in range(int(command["count"])):
            pause = started + index * interval_s - time.monotonic()
            await asyncio.sleep(max(pause, 0))
            if "bytes" in command:
                self.publish_sized(int(command["bytes"]))
            else:
                self.publish(int(command["pad"]))
        say("done", count=command["count"])


async def serve(port: int, hub: Hub, metrics: Metrics, handle: Any) -> None:
    """Serve the hub's sockets as the composition root does, until the bench goes away."""
    # The standard output is for the bench.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    # As `rtserver serve` sets it.
    gc.set_threshold(*COLLECTOR)
    protocol = {"kind": KIND, "factory": "0x" + "0" * 40, "positionManager": "0x" + "0" * 40}
    budgets = local_budgets(hub.limits)
    rest = Rest(hub, {CHAIN: ServedChain(CHAIN, "bench", [protocol], _HOUR_S)}, "bench", (), budgets, metrics)
    sockets = Sockets(hub, rest, ("*",), budgets)
    app = web.Application(middlewares=[problem_middleware(metrics, ("*",))])
    app.add_routes([*rest.routes(), *sockets.routes()])
    runner = EdgeRunner(app, limits=hub.limits, metrics=metrics, proxies=Proxies(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(tick_forever(hub)), group.create_task(ask_forever())]
        await obey(port, handle)
        for task in tasks:
            task.cancel()
        for session in list(hub.sessions):
            session.outlet.abort()
    await runner.cleanup()


async def _main(port: int) -> None:
    script = Script()
    await serve(port, script.hub, script.metrics, script.handle)


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
