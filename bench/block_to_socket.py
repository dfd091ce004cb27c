"""From a block's head to the frames in its clients: how long, how many calls, how much CPU.

Starts a real node with the real contracts, mints positions, lets a market trade in every block, and serves
them with `rtserver serve` in a process of its own. Another process holds all clients and, beside them, one
bare newHeads subscriber: a sample is the time from that subscriber's head to the client's whole frame of the
same block. `--peer viem` measures clients of the same chain that poll for themselves, each with one multicall
a block, in the same run.

    python -m bench.block_to_socket [--clients 1,1000] [--blocks 40] [--peer viem] [--json]
"""

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.common import machine, machine_line, percentile
from bench.common_counters import cpu_ns
from bench.common_lab import BenchLab, open_bench_lab
from bench.common_peer import install_peer, peer_settings
from bench.common_process import Lines, first_value_s, metric, read_metrics, start_server
from bench.traced_server import STATIONS
from rtserver.demo.ports import free_port
from rtserver.demo.settings_file import settings_toml

__all__ = ["main"]

_CHANNELS_A_CLIENT: Final = 5
_WARM_UP: Final = 3
# The peer begins before the subscriber that times it, and goes on until all of its clients have this many more.
_PEER_MARGIN: Final = 5
# A block a second: this long without one means that something has ended.
_SILENCE_S: Final = 60.0
# From a block until the market acts: all frames are through, the next block is half a second away.
_TRADE_AFTER_S: Final = 0.3
_SERVER_STOP_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    blocks: int
    seed: int
    folder: Path
    tell: Callable[[str], None]


def _clients(bench: BenchLab, count: int, seed: int) -> list[list[int]]:
    """Return each client's token ids: every position is watched about equally often."""
    rng = random.Random(seed)
    deck: list[int] = []
    clients = []
    for _ in range(count):
        if len(deck) < _CHANNELS_A_CLIENT:
            fresh = [token_id for token_id in bench.token_ids if token_id not in deck]
            rng.shuffle(fresh)
            deck += fresh
        clients.append([deck.pop(0) for _ in range(_CHANNELS_A_CLIENT)])
    return clients


async def _watch(load: Lines, bench: BenchLab, on_window: Callable[[str], Any]) -> dict[str, Any]:
    """Keep the market going block by block until the load generator has its result."""
    while True:
        event = await load.next(_SILENCE_S)
        match event["event"]:
            case "block":
                await asyncio.sleep(_TRADE_AFTER_S)
                await bench.trade()
            case "window":
                await on_window(event["state"])
            case "result":
                return event


def _latencies(samples_ns: Sequence[Sequence[int]]) -> dict[str, Any]:
    flat = [at / 1e6 for block in samples_ns for at in block]
    lasts = [max(block) / 1e6 for block in samples_ns if block]
    firsts = [min(block) / 1e6 for block in samples_ns if block]
    return {
        "samples": len(flat),
        "p50_ms": _round(percentile(flat, 0.50)),
        "p95_ms": _round(percentile(flat, 0.95)),
        "p99_ms": _round(percentile(flat, 0.99)),
        "max_ms": _round(max(flat, default=float("nan"))),
        "first_p50_ms": _round(percentile(firsts, 0.50)),
        "last_p50_ms": _round(percentile(lasts, 0.50)),
    }


def _round(value: float) -> float:
    return round(value, 2)


def _stations(trace: Path, heads: dict[str, Sequence[int]], samples_ns: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return the median milliseconds from the subscriber's head until a block was at each station."""
    times = json.loads(trace.read_text())
    stations = {
        name: percentile(
            [(times[block][name] - at) / 1e6 for block, (_, at) in heads.items() if name in times.get(block, ())], 0.5
        )
        for name in STATIONS
    }
    latencies = _latencies(samples_ns)
    stations |= {"first frame": latencies["first_p50_ms"], "last frame": latencies["last_p50_ms"]}
    return {name: _round(value) for name, value in stations.items()}


async def _measure_server(bench: BenchLab, count: int, plan: _Plan, *, traced: bool) -> dict[str, Any]:
    node, chain_id = bench.lab.node, bench.lab.deployment.chain_id
    port = free_port()
    settings = plan.folder / "rtserver.toml"
    toml = settings_toml(bench.lab.deployment, ws_url=node.ws_url, http_url=node.http_url)
    await asyncio.to_thread(settings.write_text, toml)
    clients = _clients(bench, count, plan.seed)
    channels = [[f"position:{chain_id}:uniswap-v3:{token_id}" for token_id in mine] for mine in clients]
    plan.tell(f"rtserver, {count} clients: starting")
    async with AsyncExitStack() as stack:
        started = time.monotonic()
        trace = plan.folder / f"trace-{count}.json" if traced else None
        server = start_server(settings, port, plan.folder / f"server-{count}.log", trace)
        stack.push_async_callback(server.end, timeout_s=_SERVER_STOP_S)
        cold_s = await asyncio.to_thread(first_value_s, server, port, channels[0][0], started)
        load = await stack.enter_async_context(
            Lines.start(
                [sys.executable, "-m", "bench.common_load"],
                {
                    "head_url": node.ws_url,
                    "server_url": f"ws://127.0.0.1:{port}/ws",
                    "clients": channels,
                    "warm_up": _WARM_UP,
                    "blocks": plan.blocks,
                },
                plan.folder / f"load-{count}.log",
            )
        )
        joined = await load.next(_SILENCE_S)
        plan.tell(f"rtserver, {count} clients: joined in {joined['seconds']:.1f} s, measuring {plan.blocks} blocks")
        seen: dict[str, Any] = {}

        async def on_window(state: str) -> None:
            # The counters cost CPU themselves: they are read outside of the window.
            if state == "open":
                seen["metrics"] = await read_metrics(port)
                seen["cpu"], seen["node"] = cpu_ns(server.pid) / 1e6, cpu_ns(node.pid or 0) / 1e6
            else:
                seen["cpu"] = cpu_ns(server.pid) / 1e6 - seen["cpu"]
                seen["node"] = cpu_ns(node.pid or 0) / 1e6 - seen["node"]
                seen["after"] = await read_metrics(port)

        result = await _watch(load, bench, on_window)
    before, after = seen["metrics"], seen["after"]
    stations = {"stations_ms": _stations(trace, result["heads"], result["samples_ns"])} if trace else {}

    def per_block(name: str, **labels: str) -> float:
        return _round((metric(after, name, **labels) - metric(before, name, **labels)) / plan.blocks)

    return {
        "what": "rtserver",
        "clients": count,
        "channels_per_client": _CHANNELS_A_CLIENT,
        "blocks": plan.blocks,
        **_latencies(result["samples_ns"]),
        "rpc_calls_per_block": per_block("rtserver_rpc_calls_total", purpose="block"),
        "rpc_calls_per_block_all": per_block("rtserver_rpc_calls_total"),
        "cpu_ms_per_block": _round(seen["cpu"] / plan.blocks),
        "node_cpu_ms_per_block": _round(seen["node"] / plan.blocks),
        "frames_per_block": per_block("rtserver_frames_total"),
        "frames_got_per_block": _round(sum(map(len, result["samples_ns"])) / plan.blocks),
        "bytes_per_block": round(result["bytes"] / plan.blocks),
        "missed_changes": result["gaps"],
        "later_frames": result["later_frames"],
        "load": {"ready_per_poll": _round(result["ready_per_poll"]), "heads_while_busy": result["busy_heads"]},
        "joined_s": _round(joined["seconds"]),
        "cold_start_s": _round(cold_s),
        **stations,
    }


async def _measure_peer(bench: BenchLab, count: int, plan: _Plan, script: list[str]) -> dict[str, Any]:
    node = bench.lab.node
    plan.tell(f"viem, {count} clients: starting")
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(
            Lines.start(
                script,
                peer_settings(bench, _clients(bench, count, plan.seed), _WARM_UP + plan.blocks + _PEER_MARGIN),
                plan.folder / f"peer-{count}.log",
            )
        )
        while (event := await peer.next(_SILENCE_S))["event"] != "joined":
            plan.tell(f"viem, {count} clients: {event}")
        plan.tell(f"viem, {count} clients: joined, measuring {plan.blocks} blocks")
        load = await stack.enter_async_context(
            Lines.start(
                [sys.executable, "-m", "bench.common_load"],
                {
                    "head_url": node.ws_url,
                    "server_url": None,
                    "clients": [],
                    "warm_up": _WARM_UP,
                    "blocks": plan.blocks,
                },
                plan.folder / f"load-peer-{count}.log",
            )
        )
        await load.next(_SILENCE_S)
        seen: dict[str, float] = {}

        async def on_window(state: str) -> None:
            sign = -1 if state == "open" else 1
            for name, pid in (("cpu", peer.pid), ("node", node.pid or 0)):
                seen[name] = seen.get(name, 0.0) + sign * cpu_ns(pid) / 1e6

        heads = (await _watch(load, bench, on_window))["heads"]
        answer = await peer.next(_SILENCE_S)
    by_number = dict(heads.values())
    samples = [
        [int(at) - by_number[int(number)] for at in times]
        for number, times in answer["done_ns"].items()
        if int(number) in by_number
    ]
    return {
        "what": "viem " + answer["viem"],
        "clients": count,
        "channels_per_client": _CHANNELS_A_CLIENT,
        "blocks": plan.blocks,
        **_latencies(samples),
        "rpc_calls_per_block": _round(answer["calls"] / max(answer["blocks"], 1)),
        "cpu_ms_per_block": _round(seen["cpu"] / plan.blocks),
        "node_cpu_ms_per_block": _round(seen["node"] / plan.blocks),
        "fees_checked": answer["checked"],
        "fees_wrong": answer["wrong"],
    }


# --- the program ------------------------------------------------------------------------------------------


async def _run(options: argparse.Namespace) -> dict[str, Any]:
    def tell(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    began = time.monotonic()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rtserver-bench-") as folder:
        plan = _Plan(blocks=options.blocks, seed=options.seed, folder=Path(folder), tell=tell)
        script = await install_peer(tell) if options.peer == "viem" else []
        async with open_bench_lab(
            positions=options.positions, swaps=options.swaps, seed=options.seed, tell=tell
        ) as bench:
            for count in options.clients:
                runs.append(await _measure_server(bench, count, plan, traced=options.trace))  # noqa: PERF401
            runs += [await _measure_peer(bench, count, plan, script) for count in options.peer_clients if script]
            refused = len(bench.refused)
    return {
        "bench": "block_to_socket",
        "positions": options.positions,
        "block_time_s": 1,
        "swaps_per_block": options.swaps,
        "transactions_refused": refused,
        "machine": machine(),
        "runs": runs,
    }


def _counts(text: str) -> list[int]:
    counts = [int(part) for part in text.split(",")]
    if any(count < 1 for count in counts):
        raise argparse.ArgumentTypeError("one or more numbers over zero, such as 1,1000")
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="bench.block_to_socket", description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=_counts, default=[1, 1000], help="numbers of clients, one run each")
    parser.add_argument("--blocks", type=int, default=40, help="measured blocks per run")
    parser.add_argument("--positions", type=int, default=1000)
    parser.add_argument("--swaps", type=int, default=4, help="trades in every block, over ten pools")
    parser.add_argument("--peer", choices=("viem",), help="also measure clients that poll for themselves")
    parser.add_argument("--peer-clients", type=_counts, default=[1, 200])
    parser.add_argument("--trace", action="store_true", help="print when a block passes which part of the server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)
    # Every client is a descriptor here and in the server, which inherits the limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    report = asyncio.run(_run(options))
    print(json.dumps(report, indent=1) if options.json else _table(report))
    return 1 if any(run.get("missed_changes") or run.get("fees_wrong") for run in report["runs"]) else 0


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"block_to_socket on {machine_line()}",
        f"{report['positions']} positions, {_CHANNELS_A_CLIENT} a client, a block a second,"
        f" {report['swaps_per_block']} trades a block; milliseconds from a bare subscriber's head to the client",
        "",
        f"{'':<14}{'clients':>8}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'calls':>8}{'CPU ms':>8}{'node ms':>8}"
        f"{'frames':>8}{'cold s':>8}",
    ]
    lines += [
        f"{run['what']:<14}{run['clients']:>8}{run['p50_ms']:>9.2f}{run['p95_ms']:>9.2f}{run['p99_ms']:>9.2f}"
        f"{run['max_ms']:>9.2f}{run['rpc_calls_per_block']:>8.2f}{run['cpu_ms_per_block']:>8.1f}"
        f"{run['node_cpu_ms_per_block']:>8.1f}{run.get('frames_per_block', ''):>8}{run.get('cold_start_s', ''):>8}"
        for run in report["runs"]
    ]
    for run in report["runs"]:
        if "stations_ms" in run:
            path = " → ".join(f"{name} {at:.1f}" for name, at in run["stations_ms"].items())
            lines += ["", f"{run['clients']} clients, traced, median ms after the head: {path}"]
    missed = sum(run.get("missed_changes", 0) for run in report["runs"])
    return "\n".join([*lines, "", f"calls, CPU and frames are per block; missed changes: {missed}"])


if __name__ == "__main__":
    sys.exit(main())
