"""Servers in turns: all are up with all their clients, one runs at a time, the others are stopped.

So a change of the machine's mood hits each of them, and a ratio is of two neighbours in time. Decides what a
turn measures; never compares.
"""

import asyncio
import json
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench.common_counters import cpu_ns, resident_kib
from bench.fanout_contenders import OURS, Contender
from bench.fanout_load import Load, Loader, start_load
from bench.fanout_process import Talker, cores, start_talker

__all__ = ["INTERVAL_S_A_CLIENT", "WARM_UP", "Figures", "Seat", "free_port", "measure_all", "open_seat"]

# Before a turn counts: caches fill, a frame finds its exact size, and receivers that were idle stop to acknowledge
# each segment at once (16 of them, Linux net/ipv4/tcp_input.c): that costs half as much again as the write itself.
WARM_UP: Final = 20
# Time for one broadcast to a client, of a server that is not fast.
INTERVAL_S_A_CLIENT: Final = 18e-6
# Where in an interval all of its broadcast is over, and the next is not there yet.
_QUIET: Final = 0.95
# A burst fits into every socket's buffer, so that nobody lags and nothing waits for a reader.
_BURST: Final = 8
_BURSTS: Final = 3
_READY_TIMEOUT_S: Final = 30.0
_LAST_TIMEOUT_S: Final = 60.0
_PORTS: Final = range(18200, 18300)


@dataclass(slots=True)
class Figures:
    """What one server did at one size, over all rounds."""

    name: str
    clients: int
    bytes: int
    cpu_us: list[float] = field(default_factory=list)
    mean_cpu_us: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    last_p50_ms: list[float] = field(default_factory=list)
    last_p99_ms: list[float] = field(default_factory=list)
    messages_per_s: list[float] = field(default_factory=list)
    load_share: list[float] = field(default_factory=list)
    message_bytes: float = 0.0
    kib_per_connection: float = 0.0
    open_s: float = 0.0

    def row(self) -> dict[str, Any]:
        """Return the medians over the rounds."""

        def median(values: Sequence[float], digits: int) -> float:
            return round(statistics.median(values), digits)

        return {
            "name": self.name,
            "clients": self.clients,
            "bytes": self.bytes,
            "cpu_us_per_message": median(self.cpu_us, 3),
            "mean_cpu_us_per_message": median(self.mean_cpu_us, 3),
            "ratio_to_floor": median(self.ratios, 3),
            "p50_ms": median(self.p50_ms, 2),
            "p99_ms": median(self.p99_ms, 2),
            "last_p50_ms": median(self.last_p50_ms, 2),
            "last_p99_ms": median(self.last_p99_ms, 2),
            "messages_per_s": round(statistics.median(self.messages_per_s)),
            "kib_per_connection": round(self.kib_per_connection, 2),
            "bytes_per_message": round(self.message_bytes, 1),
            "load_generator_busy": median(self.load_share, 3),
            "open_s": round(self.open_s, 2),
            "rounds": len(self.cpu_us),
        }


@dataclass(slots=True)
class Seat:
    """A server with all its clients connected."""

    contender: Contender
    server: Talker
    load: Load
    port: int
    kib_per_connection: float
    open_s: float

    async def sampled(self, *, count: int, interval_s: float, **command: Any) -> tuple[list[float], dict[str, Any]]:
        """Let it broadcast; return the CPU nanoseconds of each broadcast, and what the clients counted.

        The clock of a process is read from outside, in the quiet end of each interval. So a moment in which
        the machine was busy with something else spoils one sample, not the turn.
        """
        samples = [cpu_ns(self.server.pid)]

        async def sample() -> None:
            started = time.monotonic()
            for index in range(count):
                await asyncio.sleep(max(started + (index + _QUIET) * interval_s - time.monotonic(), 0))
                samples.append(cpu_ns(self.server.pid))

        async with asyncio.TaskGroup() as group:
            group.create_task(sample())
            report = await self.broadcast(count=count, interval_s=interval_s, **command)
        spent = [float(after - before) for before, after in pairwise(samples)]
        # On a machine too busy to keep the pace, broadcasts run into each other's samples: only the sum is true.
        last_ms = max(last for *_, last in report["broadcasts"])
        if last_ms > interval_s * 1000 * _QUIET:
            spent = [(cpu_ns(self.server.pid) - samples[0]) / count] * count
        return spent, report

    async def broadcast(self, timeout_s: float = _LAST_TIMEOUT_S, **command: Any) -> dict[str, Any]:
        """Let it broadcast, and return what the clients counted once everyone has everything."""
        await self.load.reset()
        self.server.tell(json.dumps({"do": "broadcast", **command}))
        last_s = command["count"] * command["interval_s"] + timeout_s
        report = await self.load.wait(command["count"], last_s)
        await self.server.hear("done", timeout_s)
        return report


def free_port() -> int:
    """Return a port of the benches' own range that nobody listens on."""
    for port in _PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port from {_PORTS.start} to {_PORTS.stop - 1}")


async def open_seat(
    stack: AsyncExitStack,
    contender: Contender,
    loader: Loader,
    clients: int,
    folder: Path,
    *,
    options: Sequence[str] = (),
) -> Seat:
    """Start a server, connect all its clients, and see what each connection takes while it is idle."""
    port = free_port()
    name = contender.name.replace(" ", "-")
    server = await stack.enter_async_context(
        start_talker(
            contender.command(port),
            name=contender.name,
            core=cores()[1 if contender.runs_on == "nginx" else 0],
            log=folder / f"{name}.log",
            environment=contender.environment,
        )
    )
    server.pid = (await server.hear("listening", _READY_TIMEOUT_S)).get("pid", server.pid)
    load = await stack.enter_async_context(
        start_load(
            loader, port, clients, folder, name=name, options=["--path", contender.path, *contender.options, *options]
        )
    )
    before = resident_kib(server.pid)
    open_s = await load.open()
    return Seat(contender, server, load, port, (resident_kib(server.pid) - before) / clients, open_s)


async def _turn(seat: Seat, figures: Figures, *, count: int, interval_s: float) -> None:
    size = figures.bytes
    await seat.broadcast(count=WARM_UP, interval_s=seat.load.clients * INTERVAL_S_A_CLIENT, bytes=size)
    spent, report = await seat.sampled(count=count, interval_s=interval_s, bytes=size)
    lasts = sorted(last_ms for *_, last_ms in report["broadcasts"])
    figures.cpu_us.append(statistics.median(spent) / 1e3 / seat.load.clients)
    figures.mean_cpu_us.append(statistics.fmean(spent) / 1e3 / seat.load.clients)
    figures.p50_ms.append(report["p50_ms"])
    figures.p99_ms.append(report["p99_ms"])
    figures.last_p50_ms.append(lasts[len(lasts) // 2])
    figures.last_p99_ms.append(lasts[min(len(lasts) * 99 // 100, len(lasts) - 1)])
    figures.load_share.append(report["cpu_ms"] / report["wall_ms"])
    figures.message_bytes = report["bytes"] / report["frames"] - (2 if size < 126 else 4)
    for _ in range(_BURSTS):
        report = await seat.broadcast(count=_BURST, interval_s=0, bytes=size)
        stamps = [stamp for stamp, *_ in report["broadcasts"]]
        end_ns = max(stamp + last_ms * 1e6 for stamp, _, _, last_ms in report["broadcasts"])
        figures.messages_per_s.append(_BURST * seat.load.clients / ((end_ns - min(stamps)) / 1e9))


async def measure_all(
    contenders: Sequence[Contender],
    loader: Loader,
    *,
    clients: int,
    sizes: Sequence[int],
    rounds: int,
    broadcasts: int,
    interval_s: float,
    folder: Path,
    tell: Callable[[str], None],
) -> list[Figures]:
    """Return what each server did at each size; the first one is the floor of every round."""
    async with AsyncExitStack() as stack:
        seats: list[Seat] = []
        for contender in contenders:
            options: list[str] = []
            if contender is OURS:
                everyone = folder / f"channels-{clients}"
                everyone.write_text("position:1:uniswap-v3:1\n" * clients)
                options = ["--channels", str(everyone)]
            try:
                seat = await open_seat(stack, contender, loader, clients, folder, options=options)
            except RuntimeError as error:
                if not seats or contender is OURS:
                    raise
                # A peer that can't do it tells nothing about the others.
                tell(f"{clients} clients on {contender.name}: left out, {error}")
                continue
            tell(
                f"{clients} clients on {contender.name} in {seat.open_s:.1f} s, {seat.kib_per_connection:.1f} KiB each"
            )
            seat.server.stop()
            seats.append(seat)
        figures = {
            (seat.contender.name, size): Figures(
                seat.contender.name, clients, size, kib_per_connection=seat.kib_per_connection, open_s=seat.open_s
            )
            for size in sizes
            for seat in seats
        }
        for size in sizes:
            for index in range(rounds):
                # Every other round the other way round: whoever comes second does so half of the time.
                for seat in seats if index % 2 == 0 else reversed(seats):
                    seat.server.go_on()
                    await _turn(seat, figures[seat.contender.name, size], count=broadcasts, interval_s=interval_s)
                    seat.server.stop()
                floor = figures[seats[0].contender.name, size].cpu_us[-1]
                for seat in seats:
                    mine = figures[seat.contender.name, size]
                    mine.ratios.append(mine.cpu_us[-1] / floor)
                tell(
                    f"{clients} × {size} bytes, round {index + 1}: "
                    + ", ".join(
                        f"{seat.contender.name} {figures[seat.contender.name, size].cpu_us[-1]:.2f}" for seat in seats
                    )
                    + " µs a message"
                )
        return list(figures.values())
