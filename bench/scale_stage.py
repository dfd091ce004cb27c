"""Engine, Redis and gateways as processes, with clients at every gateway: what a block costs each of them.

Gateways run on the first core, everything else on the last one, as does the load. Starts, ends and reads counters;
never decides what they mean.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.common_counters import cpu_ns, resident_kib
from bench.fanout_load import Load, Loader, start_load
from bench.fanout_process import Talker, cores, pinned, start_talker
from bench.fanout_scenarios import position_channels, write_channels
from rtserver.demo.ports import free_port
from rtserver.demo.process import Child
from rtserver.demo.server import await_ready, url_of

__all__ = ["LOAD_OPTIONS", "Apart", "Cell", "channels_of", "open_apart"]

LOAD_OPTIONS: Final = ("--path", "/ws", "--marker", '"timestamp":', "--in-flight", "512")
_ANSWER_S: Final = 60.0
_HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What blocks cost with so many gateways and clients; bytes and microseconds of CPU are means a block."""

    gateways: int
    clients: int
    channels: int
    blocks: int
    frames: int
    frame_bytes: float
    engine_us: float
    gateways_us: float
    redis_us: float
    redis_in: float
    redis_out: float
    redis_memory: int
    kib_per_connection: float
    join_us: float
    last_ms: tuple[float, ...]

    @property
    def us_per_frame(self) -> float:
        """Return a gateway's CPU for one frame to one client."""
        return self.gateways_us * self.blocks / self.frames


def channels_of(clients: int, channels: int, each: int) -> list[list[str]]:
    """Return what each client watches, so that each channel has as many listeners as any other, or one more."""
    names = position_channels(channels)
    return [[names[(index * each + at) % channels] for at in range(each)] for index in range(clients)]


@dataclass(slots=True)
class Apart:
    """The processes of an engine with its gateways."""

    url: str
    redis: Child
    engine: Talker
    gateways: list[Child]
    ports: list[int]

    @asynccontextmanager
    async def clients(self, loader: Loader, wanted: Sequence[Sequence[str]], folder: Path) -> AsyncIterator["Clients"]:
        """Connect clients, spread evenly over the gateways."""
        async with AsyncExitStack() as stack:
            loads = []
            for index, port in enumerate(self.ports):
                mine = wanted[index :: len(self.ports)]
                own = folder / f"load-{index}"
                own.mkdir(exist_ok=True)
                options = [*LOAD_OPTIONS, *write_channels(own, mine)]
                loading = start_load(loader, port, len(mine), own, name=f"gateway {index}", options=options)
                loads.append(await stack.enter_async_context(loading))
            before, cpu = self._resident_kib(), self.gateways_ns()
            await asyncio.gather(*(load.open() for load in loads))
            joined_us = (self.gateways_ns() - cpu) / 1e3
            yield Clients(self, loads, (self._resident_kib() - before) / len(wanted), joined_us / len(wanted))

    def _resident_kib(self) -> int:
        return sum(resident_kib(gateway.pid) for gateway in self.gateways)

    def gateways_ns(self) -> int:
        """Return the CPU time of all gateways."""
        return sum(cpu_ns(gateway.pid) for gateway in self.gateways)

    async def channels(self) -> int:
        """Return how many channels the engine has open."""
        return int((await self.engine.ask('{"do":"stats"}', "stats", _ANSWER_S))["channels"])


class Clients:
    """Clients at all gateways."""

    def __init__(self, apart: Apart, loads: Sequence[Load], kib_per_connection: float, join_us: float) -> None:
        self._apart = apart
        self._loads = loads
        self._kib_per_connection = kib_per_connection
        self._join_us = join_us

    async def blocks(self, count: int, interval_s: float, pad: int) -> Cell:
        """Have blocks published that change every channel, and return what they cost.

        Raises:
            RuntimeError: A client missed one, or a change didn't continue what it had.
        """
        apart = self._apart
        for load in self._loads:
            await load.reset()
        async with Redis.from_url(apart.url) as redis:
            facts, cpu = await redis.info(), self._cpu()
            apart.engine.tell(json.dumps({"do": "blocks", "count": count, "interval_s": interval_s, "pad": pad}))
            last_s = count * interval_s + _ANSWER_S
            reports = await asyncio.gather(*(load.wait(count, last_s) for load in self._loads))
            await apart.engine.hear("done", _ANSWER_S)
            after, cpu_after = await redis.info(), self._cpu()
        if gaps := sum(report["gaps"] for report in reports):
            raise RuntimeError(f"{gaps} changes did not continue what their client had")
        lasts: dict[int, float] = {}
        for report in reports:
            for stamp, _, _, last_ms in report["broadcasts"]:
                lasts[stamp] = max(lasts.get(stamp, 0.0), last_ms)
        engine_us, redis_us, gateways_us = (
            (now - then) / count / 1e3 for now, then in zip(cpu_after, cpu, strict=True)
        )
        frames = sum(report["frames"] for report in reports)
        return Cell(
            gateways=len(apart.gateways),
            clients=sum(load.clients for load in self._loads),
            channels=await apart.channels(),
            blocks=count,
            frames=frames,
            frame_bytes=sum(report["bytes"] for report in reports) / frames,
            engine_us=engine_us,
            gateways_us=gateways_us,
            redis_us=redis_us,
            redis_in=(after["total_net_input_bytes"] - facts["total_net_input_bytes"]) / count,
            redis_out=(after["total_net_output_bytes"] - facts["total_net_output_bytes"]) / count,
            redis_memory=int(after["used_memory"]),
            kib_per_connection=self._kib_per_connection,
            join_us=self._join_us,
            last_ms=tuple(lasts.values()),
        )

    def _cpu(self) -> tuple[int, int, int]:
        apart = self._apart
        return cpu_ns(apart.engine.pid), cpu_ns(apart.redis.pid), apart.gateways_ns()


@asynccontextmanager
async def open_apart(folder: Path, gateways: int) -> AsyncIterator[Apart]:
    """Start Redis, an engine and gateways; end them afterwards."""
    async with AsyncExitStack() as stack:

        def start(words: Sequence[str], core: int, log: str, **environment: str) -> Child:
            child = Child([*pinned(core), *words], log=folder / log, environment={**os.environ, **environment})
            stack.push_async_callback(child.end, timeout_s=5.0)
            return child

        first, last = cores()
        port = free_port()
        url = f"redis://{_HOST}:{port}/0"
        redis = start(["redis-server", "--port", str(port), "--bind", _HOST, "--save", ""], last, "redis.log")
        await _answers(url, redis)
        engine = await stack.enter_async_context(
            start_talker(
                [sys.executable, "-m", "bench.scale_engine", url], name="engine", core=last, log=folder / "engine.log"
            )
        )
        await engine.hear("listening", _ANSWER_S)
        ports = [free_port() for _ in range(gateways)]
        wide = {f"RTSERVER_LIMITS__{name}": "1000000" for name in ("CONNECTIONS_PER_IP", "CONNECTIONS_PER_MINUTE", "LOADS_PER_MINUTE")}  # fmt: skip  # noqa: E501
        # Heartbeats are out of the way; a channel stays open between two sizes.
        wide |= {"RTSERVER_LIMITS__HEARTBEAT_S": "300", "RTSERVER_LIMITS__LINGER_S": "3600"}
        words = [sys.executable, "-m", "rtserver", "serve", "--role", "gateway", "--host", _HOST, "--port"]
        started = [
            start([*words, str(each)], first, f"gateway-{each}.log", RTSERVER_REDIS__URL=url,
                  RTSERVER_LOG__LEVEL="warning", RTSERVER_LIMITS__MESSAGES_PER_S="1000000", **wide)
            for each in ports
        ]  # fmt: skip
        await asyncio.gather(
            *(await_ready(child, url_of(_HOST, each)) for child, each in zip(started, ports, strict=True))
        )
        yield Apart(url, redis, engine, started, ports)


async def _answers(url: str, redis: Child) -> None:
    async with Redis.from_url(url) as client, asyncio.timeout(_ANSWER_S):
        while True:
            with suppress(RedisError, OSError):
                await client.ping()
                return
            if redis.returncode is not None:
                raise RuntimeError(f"redis-server ended: {redis.said()}")
            await asyncio.sleep(0.02)
