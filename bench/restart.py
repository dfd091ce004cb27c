"""Killed with `kill -9` and started again: until it is ready, until every owner is served, and what that asks of
the node; against a start that knows nothing. And what keeping costs while blocks come.

A node of its own on loopback with the real contracts, one socket with all owners. Ready is `/health/ready`;
served is the last owner's snapshot, asked for as soon as the server is ready.

    python -m bench.restart [--positions 2000] [--owners 500] [--turns 3] [--blocks 20]
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp
import uvloop

from bench.common import machine_line
from bench.common_lab import BenchLab, open_bench_lab
from bench.common_process import metric, read_metrics, start_server
from rtserver.demo.lab import Lab
from rtserver.demo.ports import free_port
from rtserver.demo.process import Child
from rtserver.demo.ranges import RangeKind, choose_range
from rtserver.demo.server import await_ready
from rtserver.demo.settings_file import settings_toml

__all__ = ["main"]

_STOP_S: Final = 6.0
_OPEN_S: Final = 120.0
_ITS_OWN: Final = 20
_MINTS_A_BLOCK: Final = 50


def _tell(text: str) -> None:
    print(f"\r{text:60}", end="", file=sys.stderr)


async def _mint(lab: Lab, count: int, positions: int) -> list[str]:
    """Mint positions for addresses that only hold them, paid for by the lab's owners; return the addresses."""
    owners = [f"0x{0xABC0000 + index:040x}" for index in range(count)]
    rng = random.Random(1)
    pools = lab.deployment.pools
    for start in range(0, positions, _MINTS_A_BLOCK):
        for index in range(start, min(start + _MINTS_A_BLOCK, positions)):
            pool = rng.choice(pools)
            lower, upper = choose_range(rng, pool, lab.pool_state(pool).tick, RangeKind.WIDE)
            amounts = pool.token0.raw_of_usd(1000), pool.token1.raw_of_usd(1000)
            payer = lab.owners[index % len(lab.owners)]
            await lab.mint(owners[index % count], pool, lower, upper, *amounts, payer=payer)
        await lab.mine()
        _tell(f"minted {start + _MINTS_A_BLOCK} of {positions} positions")
    return owners


async def _serve(settings: Path, port: int, bench: BenchLab, owners: Sequence[str]) -> tuple[Child, dict[str, float]]:
    """Start the server; return it and how long and how many calls it took."""
    started = time.monotonic()
    server = start_server(settings, port, settings.with_suffix(".log"))
    await await_ready(server, f"http://127.0.0.1:{port}", timeout_s=60)
    ready_s = time.monotonic() - started
    chain_id = bench.lab.deployment.chain_id
    # Bare, and all at once: the client library keeps to a pace that spares servers.
    async with aiohttp.ClientSession() as http, http.ws_connect(f"ws://127.0.0.1:{port}/ws", max_msg_size=0) as socket:
        for owner in owners:
            await socket.send_json({"type": "subscribe", "channel": f"owner:{chain_id}:{owner}"})
        open_count = count = 0
        while open_count < len(owners):
            message = await socket.receive_json(timeout=_OPEN_S)
            open_count += message["type"] == "subscribed"
            count += len(message.get("state", ()))
        served_s = time.monotonic() - started
    samples = await read_metrics(port)
    calls = {purpose: metric(samples, "rtserver_rpc_calls_total", purpose=purpose) for purpose in ("load", "head")}
    return server, {"ready_s": ready_s, "served_s": served_s, "positions": count, **calls}


def _line(name: str, runs: list[dict[str, float]]) -> str:
    cells = [f"{key} {statistics.median(run[key] for run in runs):.6g}" for key in runs[0]]
    return f"{name:10} " + "   ".join(cells)


async def _bench(options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtserver-bench-")))
        bench = await stack.enter_async_context(open_bench_lab(positions=_ITS_OWN, swaps=3, seed=1, tell=_tell))
        await bench.lab.node.set_block_time(None)
        owners = await _mint(bench.lab, options.owners, options.positions)
        node, store = bench.lab.node, folder / "store.sqlite3"
        runs: dict[str, list[dict[str, float]]] = {"cold": [], "killed": []}
        port = free_port()
        for turn in range(options.turns):
            for name, file in (("cold", folder / f"fresh-{turn}.sqlite3"), ("killed", store)):
                text = settings_toml(bench.lab.deployment, ws_url=node.ws_url, http_url=node.http_url, store=file)
                text += f"\n[limits]\nchannels = {options.owners + 10}\nload_s = 120\n"
                text += "messages_per_s = 10000\nburst = 10000\n"
                settings = folder / f"{name}.toml"
                await asyncio.to_thread(settings.write_text, text.replace("[store]", "[store]\nevery_s = 1"))
                if name == "killed" and not turn:
                    server, _ = await _serve(settings, port, bench, owners)
                    await _keep(bench, port, options.blocks, store)
                    server.kill_now()
                for _ in range(3):
                    await bench.trade()
                    await bench.lab.mine(allow_failures=True)
                server, run = await _serve(settings, port, bench, owners)
                runs[name].append(run)
                await _kept(port, 1)
                server.kill_now()
        for name, found in runs.items():
            print(_line(name, found))
        print(machine_line())


async def _kept(port: int, count: int) -> None:
    async with asyncio.timeout(60):
        while metric(await read_metrics(port), "rtserver_store_write_seconds_count") < count:
            await asyncio.sleep(0.2)


async def _keep(bench: BenchLab, port: int, blocks: int, store: Path) -> None:
    """Trade for a while and say what keeping cost."""
    await _kept(port, 2)
    before = await read_metrics(port)
    for _ in range(blocks):
        await bench.trade()
        await bench.lab.mine(allow_failures=True)
        await asyncio.sleep(1)
    after = await read_metrics(port)

    def gained(name: str) -> float:
        return metric(after, name) - metric(before, name)

    for name in ("take", "write"):
        count = gained(f"rtserver_store_{name}_seconds_count")
        mean = 1e3 * gained(f"rtserver_store_{name}_seconds_sum") / max(count, 1)
        print(f"{name:6} {mean:8.2f} ms a checkpoint, {count:.0f} of them")
    print(f"rows   {gained('rtserver_store_rows_total') / blocks:8.1f} a block")
    print(f"file   {sum(file.stat().st_size for file in store.parent.glob('store.sqlite3*')) / 1e6:8.2f} MB")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=2000)
    parser.add_argument("--owners", type=int, default=500)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=20)
    uvloop.run(_bench(parser.parse_args()))


if __name__ == "__main__":
    main()
