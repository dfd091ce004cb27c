"""Thousands of clients dropped at once come back with their cursors: how long until all are current again.

rtserver's own socket and hub, fed by a script; the clients are one compiled process. While they are away the
chain goes on, and while they come back, too. Two storms: the sockets break but the server lives (everyone
resumes, nobody is sent a snapshot, nothing is loaded), and the server is restarted (no cursor can be proven,
everyone gets a snapshot, and each channel is loaded once, however many ask for it).

    python -m bench.resume_storm [--clients 5000] [--channels 1000] [--each 5] [--json]
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.common import machine, machine_line
from bench.common_counters import cpu_ns
from bench.fanout_contenders import OURS
from bench.fanout_load import Loader, build_loader, start_load
from bench.fanout_process import Talker, cores, raise_file_limit, start_talker
from bench.fanout_scenarios import position_channels, write_channels
from bench.fanout_turns import free_port

__all__ = ["main"]

_ANSWER_S: Final = 60.0
# A block's change to a position, beside what says which.
_PAD: Final = 100
# During the storm: more blocks than any storm takes, one a quarter of a second.
_BLOCK_S: Final = 0.25
_STORM_BLOCKS: Final = 8


async def _blocks(server: Talker, count: int, interval_s: float) -> None:
    server.tell(json.dumps({"do": "broadcast", "count": count, "interval_s": interval_s, "pad": _PAD}))
    await server.hear("done", _ANSWER_S)


async def _loads(server: Talker) -> tuple[int, int]:
    stats = await server.ask('{"do":"stats"}', "stats", _ANSWER_S)
    return int(stats["loads"]), int(stats["seq"])


async def _storm(loader: Loader, folder: Path, clients: list[list[str]], *, away: int, restart: bool) -> dict[str, Any]:
    port = free_port()

    async def start(stack: AsyncExitStack) -> Talker:
        server = await stack.enter_async_context(
            start_talker(OURS.command(port), name="rtserver", core=cores()[0], log=folder / "rtserver.log")
        )
        await server.hear("listening", _ANSWER_S)
        return server

    async with AsyncExitStack() as outer:
        choice = ["--path", "/ws", "--marker", '"timestamp":', "--in-flight", "512", *write_channels(folder, clients)]
        async with AsyncExitStack() as first:
            server = await start(first)
            load = await outer.enter_async_context(start_load(loader, port, len(clients), folder, options=choice))
            open_s = await load.open()
            await load.reset()
            await _blocks(server, 3, _BLOCK_S)
            before = await load.wait(3, _ANSWER_S)
            loads, _ = await _loads(server)
            await load.drop()
            if not restart:
                outer.push_async_exit(first.pop_all())
        if restart:
            server = await start(outer)
            loads = 0
        else:
            await _blocks(server, away, 0)
        await load.reset()
        cpu = cpu_ns(server.pid)
        async with asyncio.TaskGroup() as group:
            # The chain goes on; what comes in while a client joins is the hardest to get right.
            going_on = group.create_task(_blocks(server, _STORM_BLOCKS, _BLOCK_S))
            seconds = await load.open()
            cpu = cpu_ns(server.pid) - cpu
            await going_on
        after, seq = await _loads(server)
        counts = await load.counts()
        await _blocks(server, 1, 0)
        await load.wait(1, _ANSWER_S)
        # After a restart each channel counts from the block at which it was opened again.
        behind = 0 if restart else await load.behind(seq + 1)
        final = await load.counts()
    joins = sum(map(len, clients))
    distinct = len({name for names in clients for name in names})
    result = {
        "storm": "restart" if restart else "drop",
        "clients": len(clients),
        "channels": distinct,
        "subscriptions": joins,
        "blocks_away": away,
        "first_open_s": round(open_s, 3),
        "seconds": round(seconds, 3),
        "cpu_us_per_client": round(cpu / 1e3 / len(clients), 1),
        "joins": counts["joins"],
        "resumed": counts["resumed"],
        "snapshots": counts["snapshots"],
        "unneeded_snapshots": counts["snapshots"] - (joins if restart else 0),
        "cold_loads": after - loads,
        "gaps": before["gaps"] + final["gaps"],
        "behind": behind,
        "errors": final["errors"],
    }
    wrong = [name for name in ("gaps", "behind", "errors", "unneeded_snapshots") if result[name]]
    if wrong or result["joins"] != joins or result["cold_loads"] > (distinct if restart else 0):
        raise RuntimeError(f"the storm did not end well: {', '.join(wrong)} {final['error']}\n{json.dumps(result)}")
    return result


async def _run(options: argparse.Namespace) -> int:
    def tell(text: str) -> None:
        if not options.json:
            print(f"… {text}", file=sys.stderr, flush=True)

    raise_file_limit()
    loader = await build_loader()
    rng = random.Random(options.seed)
    pool = position_channels(options.channels)
    clients = [rng.sample(pool, options.each) for _ in range(options.clients)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rtserver-storm-") as name:
        for restart in (False, True):
            runs = []
            for index in range(options.rounds):
                runs.append(
                    await _storm(loader, Path(name), clients, away=0 if restart else options.away, restart=restart)
                )
                tell(f"round {index + 1}: {json.dumps(runs[-1])}")
            middle = sorted(runs, key=lambda run: float(run["seconds"]))[len(runs) // 2]
            middle["seconds_rounds"] = [run["seconds"] for run in runs]
            middle["seconds"] = round(statistics.median(run["seconds"] for run in runs), 3)
            rows.append(middle)
    report = {"bench": "resume_storm", "seconds": rows[0]["seconds"], "machine": machine(), "rows": rows}
    print(json.dumps(report, indent=1) if options.json else _text(rows))
    return 0


def _text(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"resume storm on {machine_line()}", ""]
    for row in rows:
        what = (
            "the server was restarted"
            if row["storm"] == "restart"
            else f"all sockets dropped, {row['blocks_away']} blocks missed"
        )
        lines += [
            f"{what}: {row['clients']} clients, {row['subscriptions']} subscriptions, {row['channels']} channels",
            f"  all current after {row['seconds']:.2f} s, at {row['cpu_us_per_client']:.0f} µs of CPU a client;"
            f" the very first time it took {row['first_open_s']:.2f} s",
            f"  {row['resumed']} of {row['joins']} subscriptions resumed; {row['snapshots']} snapshots, of these"
            f" {row['unneeded_snapshots']} not needed; {row['cold_loads']} cold loads; {row['gaps']} gaps",
            "",
        ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="bench.resume_storm", description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--channels", type=int, default=1000, help="distinct channels")
    parser.add_argument("--each", type=int, default=5, help="channels a client")
    parser.add_argument("--away", type=int, default=20, help="blocks that the dropped clients miss")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return uvloop.run(_run(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
