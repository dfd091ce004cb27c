"""What grows with gateways and clients, and what does not; and from that, what a million clients need.

Real processes: `rtserver serve --role gateway`, redis-server, and an engine that a script feeds (bench.scale_engine).
So blocks come when they are wanted, and change every channel, by a patch of its own.

1. Growth: the same channels under more gateways and more clients. What the engine and Redis spend on a block may not
   grow, but for what Redis sends: each gateway hears every step.
2. Beside one process: the same clients at one gateway and at a single process (bench.fanout_rtserver), in turns:
   CPU a frame, and from publishing to the last socket. The single process delivers what a script says; a real one
   computes, too, which a gateway's engine does for it: the table has both.
3. The plan: sums with these figures (bench.scale_plan), and what an owner costs beside that (bench.scale_costs).

    python -m bench.scale [--gateways 1,2,4] [--clients 100,1000,4000] [--channels 500] [--turns 3] [--json]
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.common import machine, machine_line, percentile
from bench.common_counters import cpu_ns
from bench.fanout_contenders import OURS
from bench.fanout_load import Loader, build_loader
from bench.fanout_process import raise_file_limit
from bench.fanout_scenarios import write_channels
from bench.fanout_turns import open_seat
from bench.scale_costs import POSITIONS, OwnerCosts, owner_costs
from bench.scale_plan import Costs, Demand, plan
from bench.scale_stage import LOAD_OPTIONS, Cell, channels_of, open_apart

__all__ = ["main"]

# What changes of an owner two of whose positions moved.
_PAD: Final = 600
_WARM_UP: Final = 10
_WARM_UP_S: Final = 0.3


@dataclass(slots=True)
class Pair:
    """One gateway and one process, in turns, with the same clients."""

    clients: int
    each: int
    listeners: float
    gateway_us: list[float] = field(default_factory=list)
    single_us: list[float] = field(default_factory=list)
    gateway_last_ms: list[float] = field(default_factory=list)
    single_last_ms: list[float] = field(default_factory=list)

    @property
    def over(self) -> float:
        """Return how much more a frame costs at a gateway: the median of neighbours in time."""
        return self.over_all(0.0)

    def over_all(self, compute_us: float) -> float:
        """Return the same beside a process that also computes, as a single one does: so much for each position."""
        computed_us = compute_us * self.each / self.listeners
        return (
            statistics.median(
                one / (other + computed_us) for one, other in zip(self.gateway_us, self.single_us, strict=True)
            )
            - 1
        )


async def _grow(options: argparse.Namespace, loader: Loader, folder: Path) -> list[Cell]:
    cells = []
    for gateways in options.gateways:
        async with open_apart(folder, gateways) as apart:
            for clients in options.clients:
                wanted = channels_of(clients, options.channels, options.each)
                async with apart.clients(loader, wanted, folder) as connected:
                    await connected.blocks(_WARM_UP, _WARM_UP_S, _PAD)
                    cells.append(cell := await connected.blocks(options.blocks, options.interval_s, _PAD))
                _tell(f"{gateways} gateways, {clients} clients: {cell.engine_us:.0f} µs of the engine a block")
    return cells


async def _pair(options: argparse.Namespace, loader: Loader, folder: Path, clients: int) -> Pair:
    wanted = channels_of(clients, options.channels, options.each)
    pair = Pair(clients, options.each, clients * options.each / min(options.channels, clients * options.each))
    async with AsyncExitStack() as stack:
        apart = await stack.enter_async_context(open_apart(folder, 1))
        connected = await stack.enter_async_context(apart.clients(loader, wanted, folder))
        single = folder / "single"
        single.mkdir(exist_ok=True)
        words = [*LOAD_OPTIONS, *write_channels(single, wanted)]
        seat = await open_seat(stack, OURS, loader, clients, single, options=words)
        await connected.blocks(_WARM_UP, _WARM_UP_S, _PAD)
        await seat.broadcast(count=_WARM_UP, interval_s=_WARM_UP_S, pad=_PAD)
        for turn in range(options.turns):
            cell = await connected.blocks(options.blocks, options.interval_s, _PAD)
            pair.gateway_us.append(cell.us_per_frame)
            pair.gateway_last_ms += cell.last_ms
            before = cpu_ns(seat.server.pid)
            report = await seat.broadcast(count=options.blocks, interval_s=options.interval_s, pad=_PAD)
            pair.single_us.append((cpu_ns(seat.server.pid) - before) / 1e3 / report["frames"])
            pair.single_last_ms += [last for *_, last in report["broadcasts"]]
            _tell(f"{clients} clients, turn {turn + 1}: {pair.gateway_us[-1]:.1f} and {pair.single_us[-1]:.1f} µs")
    return pair


def _costs(cells: Sequence[Cell], pairs: Sequence[Pair], owner: OwnerCosts) -> Costs:
    """Return the slopes and intercepts of what was measured; each line through its first and its last point.

    What a gateway spends is of the pairs, which are measured in several turns: of the first blocks after thousands have
    joined, as those of a cell are, some are slow.
    """
    one = [cell for cell in cells if cell.gateways == cells[0].gateways]
    few, many = one[0], one[-1]
    # Every client gets a frame of every block.
    few_us, many_us = (pair.clients * statistics.median(pair.gateway_us) for pair in (pairs[0], pairs[-1]))
    frame_us = (many_us - few_us) / (pairs[-1].clients - pairs[0].clients)
    heard_us = (few_us - frame_us * pairs[0].clients) / few.channels
    most = [cell for cell in cells if cell.clients == few.clients][-1]
    more = (most.gateways - few.gateways) * few.channels
    redis_gateway_us = (most.redis_us - few.redis_us) / more if more else 0.0
    redis_out = (most.redis_out - few.redis_out) / more if more else few.redis_out / few.channels / few.gateways
    written = sum(cell.blocks + _WARM_UP for cell in one[1:]) * few.channels
    return Costs(
        compute_us=owner.compute_us,
        publish_us=statistics.median(cell.engine_us for cell in cells) / few.channels,
        redis_us=max(few.redis_us / few.channels - redis_gateway_us * few.gateways, 0.0),
        redis_gateway_us=max(redis_gateway_us, 0.0),
        redis_in=statistics.median(cell.redis_in for cell in cells) / few.channels,
        redis_out=redis_out,
        redis_entry=max((many.redis_memory - few.redis_memory) / written, 0.0) if written else few.redis_in,
        heard_us=max(heard_us, 0.0),
        frame_us=frame_us,
        join_us=statistics.median(cell.join_us for cell in cells if cell.clients == many.clients),
        connection_kib=many.kib_per_connection,
        state_bytes=owner.state_bytes,
        mirror_bytes=owner.mirror_bytes,
    )


def _print(cells: Sequence[Cell], pairs: Sequence[Pair], costs: Costs, lines: Sequence[str]) -> None:
    print(machine_line())
    print(f"{cells[0].channels} channels, all changed by each of {cells[0].blocks} blocks; a block:\n")
    print("| gateways | clients | engine, ms CPU | Redis, ms CPU | KB into Redis | KB out | gateways, µs CPU a frame |")
    print("|---|---|---|---|---|---|---|")
    for cell in cells:
        print(
            f"| {cell.gateways} | {cell.clients:,} | {cell.engine_us / 1e3:.1f} | {cell.redis_us / 1e3:.1f} |"
            f" {cell.redis_in / 1e3:.0f} | {cell.redis_out / 1e3:.0f} | {cell.us_per_frame:.1f} |"
        )
    print(
        "\n| clients | listeners a channel | gateway, µs CPU a frame | one process, delivering alone | more |", end=""
    )
    print(" with its computing | more | through Redis to the last socket, ms p50 / p99 | in one process |")
    print("|---|---|---|---|---|---|---|---|---|")
    for pair in pairs:
        times = [f"{percentile(ms, 0.5):.1f} / {percentile(ms, 0.99):.1f}" for ms in (pair.gateway_last_ms, pair.single_last_ms)]  # fmt: skip  # noqa: E501
        single_us, compute_us = statistics.median(pair.single_us), costs.compute_us
        print(
            f"| {pair.clients:,} | {pair.listeners:g} | {statistics.median(pair.gateway_us):.1f} |"
            f" {single_us:.1f} | {pair.over:+.0%} |"
            f" {single_us + compute_us * pair.each / pair.listeners:.1f} | {pair.over_all(compute_us):+.0%} |"
            f" {times[0]} | {times[1]} |"
        )
    print("\n" + "\n".join(f"{name} {value:.3g}" for name, value in asdict(costs).items()) + "\n")
    print("\n".join(lines))


def _tell(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


async def _run(options: argparse.Namespace) -> int:
    raise_file_limit()
    loader = await build_loader()
    with tempfile.TemporaryDirectory(prefix="rtserver-scale-") as name:
        folder = Path(name)
        cells = await _grow(options, loader, folder)
        pairs = [await _pair(options, loader, folder, clients) for clients in options.clients]
    demand = Demand(positions=POSITIONS, moved=options.moved, block_s=options.block_s)
    costs = _costs(cells, pairs, await asyncio.to_thread(owner_costs))
    result, lines = plan(costs, demand)
    if options.json:
        report: dict[str, Any] = {
            "machine": machine(), "cells": [asdict(cell) for cell in cells],
            "pairs": [
                {**asdict(pair), "over": pair.over, "over_all": pair.over_all(costs.compute_us)} for pair in pairs
            ],
            "costs": asdict(costs), "demand": asdict(demand), "plan": result, "sums": lines,
        }  # fmt: skip
        print(json.dumps(report, indent=1))
    else:
        _print(cells, pairs, costs, lines)
    return 0


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateways", type=_numbers, default=[1, 2, 4])
    parser.add_argument("--clients", type=_numbers, default=[100, 1000, 4000])
    parser.add_argument("--channels", type=int, default=500)
    parser.add_argument("--each", type=int, default=5, help="channels a client")
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--interval-s", type=float, default=0.5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--moved", type=float, default=0.25, help="the plan: share of owners that a block changes")
    parser.add_argument("--block-s", type=float, default=12.0, help="the plan: seconds between blocks")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if len(set(options.clients)) < 2:
        parser.error("--clients needs two counts or more: what a client costs is the slope between them; try 100,1000")
    return uvloop.run(_run(options))


if __name__ == "__main__":
    sys.exit(main())
