"""People who browse: how much of what they ask for is there already, and what that spares.

    python -m bench.browsing                      one process
    python -m bench.browsing --gateways 2         an engine and two gateways, joined by a Redis of the bench's own
    python -m bench.browsing --url http://127.0.0.1:8080 --browsers 4 --pause 4     a server that runs, such as the demo

A seed decides who looks at what: owners and positions by Zipf's law, so that a few are looked at by most; each look is
a summary, a position's details, its history, a snapshot, or a socket that stays for a while. Some look for what does
not exist. A market moves the chain with each block. In the end the processes' own counters say how many were
hits, and how many calls to the node there were.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import uvloop

from bench.common import machine, machine_line, percentile
from bench.common_lab import BenchLab, open_bench_lab
from bench.common_process import Samples, metric, read_metrics
from rtserver.demo.ports import free_port
from rtserver.demo.process import Child
from rtserver.demo.server import await_ready, url_of
from rtserver.demo.settings_file import settings_toml

_HOST: Final = "127.0.0.1"
# What a look is, by weight.
_LOOKS: Final = {"summary": 40, "details": 30, "history": 12, "snapshot": 10, "socket": 6, "nobody": 2}
# One in so many looks at details is for a position that does not exist.
_MISSING_EACH: Final = 20
_CACHES: Final = ("channels", "rates", "rates_shared", "history", "summaries")
# Room for all browsers behind one address.
_LIMITS: Final = """
[limits]
connections_per_ip = 100000
connections_per_minute = 1000000
loads_per_minute = 1000000
"""


@dataclass(slots=True)
class Served:
    """The processes; `gateways` are those that clients ask, `engine` is the one that asks the node."""

    gateways: list[int]
    engine: int


@dataclass(slots=True)
class Seen:
    """What the browsers saw."""

    took_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unknown: int = 0

    def clear(self) -> None:
        """Forget what was seen before it counts."""
        self.took_s.clear()
        self.statuses.clear()
        self.unknown = 0


class Zipf:
    """Chooses by rank: the k-th is chosen 1/k^s as often as the first."""

    def __init__(self, count: int, s: float) -> None:
        self._sums = list(accumulate(1 / rank**s for rank in range(1, count + 1)))
        self._ranks = range(count)

    def choose(self, rng: random.Random) -> int:
        return rng.choices(self._ranks, cum_weights=self._sums)[0]


class Browser:
    """One of them.

    Args:
        rng: Decides what it does.
        session: Its connections.
        url: The process that it is a client of.
        world: Owners and their positions, the popular ones first.
        options: The bench's.
        seen: Takes what it saw.
    """

    def __init__(
        self,
        rng: random.Random,
        session: aiohttp.ClientSession,
        url: str,
        world: Sequence[tuple[str, Sequence[int]]],
        options: argparse.Namespace,
        seen: Seen,
    ) -> None:
        self._rng = rng
        self._session = session
        self._url = url
        self._world = world
        self._owners = Zipf(len(world), options.zipf)
        self._options = options
        self._seen = seen

    async def browse(self, until: float) -> None:
        """Look at one thing after the other, with a pause between."""
        while time.monotonic() < until:
            await asyncio.sleep(self._rng.expovariate(1 / self._options.pause))
            look = self._rng.choices(list(_LOOKS), list(_LOOKS.values()))[0]
            started = time.monotonic()
            await self._look(look)
            if look != "socket":
                self._seen.took_s[look].append(time.monotonic() - started)

    async def _look(self, look: str) -> None:
        rng = self._rng
        owner, positions = self._world[self._owners.choose(rng)]
        token_id = positions[Zipf(len(positions), self._options.zipf).choose(rng)]
        match look:
            case "summary":
                body = await self._get(f"positions/summary?owner={owner}")
                self._count_unknown(body.get("positions", ()))
            case "details":
                if rng.randrange(_MISSING_EACH) == 0:
                    await self._get(f"positions/{10**9 + rng.randrange(3)}/details")
                    return
                self._count_unknown([await self._get(f"positions/{token_id}/details")])
            case "history":
                await self._get(f"positions/{token_id}/history?window={rng.choice(('1h', '24h', '24h', '7d'))}")
            case "snapshot":
                await self._get(f"snapshot?channel=owner:31337:{owner}")
            case "nobody":
                await self._get(f"positions/summary?owner=0x{rng.randrange(1, 4):040x}")
            case _:
                await self._watch(owner)

    def _count_unknown(self, positions: Sequence[Any]) -> None:
        """Count positions of which is not told what they earned."""
        self._seen.unknown += sum(1 for one in positions if "tokenId" in one and one["earnedAmountUSD"] is None)

    async def _get(self, path: str) -> dict[str, Any]:
        async with self._session.get(f"{self._url}/api/v1/{path}") as response:
            body = await response.json(content_type=None)
            self._seen.statuses[f"{response.status} {body.get('code', '')}".strip()] += 1
            return dict(body)

    async def _watch(self, owner: str) -> None:
        try:
            async with self._session.ws_connect(f"{self._url}/ws") as socket:
                await socket.send_json({"type": "subscribe", "id": 1, "channel": f"owner:31337:{owner}"})
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._rng.expovariate(1 / (4 * self._options.pause))):
                        async for _ in socket:
                            pass
        except aiohttp.WSServerHandshakeError as error:
            self._seen.statuses[f"{error.status} socket"] += 1


@asynccontextmanager
async def serving(bench: BenchLab, folder: Path, gateways: int) -> AsyncIterator[Served]:
    """Start what serves; end it afterwards."""
    environment = {**os.environ, "RTSERVER_LOG__LEVEL": "warning"}
    async with AsyncExitStack() as stack:

        def start(name: str, *words: str) -> Child:
            child = Child(words, log=folder / f"{name}.log", environment=environment)
            stack.push_async_callback(child.end, timeout_s=6.0)
            return child

        lab = bench.lab
        text = settings_toml(
            lab.deployment, ws_url=lab.node.ws_url, http_url=lab.node.http_url, owners=lab.owners[:3],
            store=folder / "store.sqlite3",
        )  # fmt: skip
        if gateways:
            redis = free_port()
            start("redis", "redis-server", "--port", str(redis), "--bind", _HOST, "--save", "")
            text += f'\n[redis]\nurl = "redis://{_HOST}:{redis}/0"\n'
        settings = folder / "rtserver.toml"
        settings.write_text(text + _LIMITS)

        async def serve(role: str) -> int:
            port = free_port()
            words = [sys.executable, "-m", "rtserver", "serve", "--config", str(settings), "--role", role]
            child = start(f"{role}-{port}", *words, "--host", _HOST, "--port", str(port))
            await await_ready(child, url_of(_HOST, port))
            return port

        engine = await serve("engine" if gateways else "all")
        yield Served([await serve("gateway") for _ in range(gateways)] or [engine], engine)


async def known_world(session: aiohttp.ClientSession, url: str) -> list[tuple[str, list[int]]]:
    """Return the owners that a running server offers, and their positions."""
    world = []
    async with session.get(f"{url}/api/v1/owners") as response:
        owners = [one["owner"] for one in (await response.json())["owners"]]
    for owner in owners:
        async with session.get(f"{url}/api/v1/positions/summary?owner={owner}") as response:
            positions = [int(one["tokenId"]) for one in (await response.json())["positions"]]
        if positions:
            world.append((owner, positions))
    return world


async def counters(served: Served) -> tuple[list[Samples], Samples]:
    """Return what the processes counted: those that clients ask, and the one that asks the node."""
    return [await read_metrics(port) for port in served.gateways], await read_metrics(served.engine)


def figures(
    before: tuple[list[Samples], Samples], after: tuple[list[Samples], Samples], seen: Seen, took_s: float
) -> dict[str, Any]:
    """Return what came of it."""

    def counted(name: str, **labels: str) -> float:
        pairs = zip(before[0], after[0], strict=True)
        return sum(metric(late, name, **labels) - metric(early, name, **labels) for early, late in pairs)

    def of_engine(name: str, **labels: str) -> float:
        return metric(after[1], name, **labels) - metric(before[1], name, **labels)

    caches: dict[str, dict[str, float]] = {}
    for cache in _CACHES:
        hits = counted("rtserver_cache_hits_total", cache=cache)
        misses = counted("rtserver_cache_misses_total", cache=cache)
        if hits + misses:
            caches[cache] = {"hits": hits, "misses": misses, "share": round(hits / (hits + misses), 4)}
    answered = caches.get("rates")
    if answered:
        # Whoever asks an engine has looked in both: a hit is what no engine was asked for.
        shared = caches.get("rates_shared", {"hits": 0.0, "misses": 0.0})
        looked = answered["hits"] + answered["misses"]
        caches["rates, both"] = {
            "hits": looked - shared["misses"],
            "misses": shared["misses"],
            "share": round(1 - shared["misses"] / looked, 4),
        }
    calls = {purpose: of_engine("rtserver_rpc_calls_total", purpose=purpose) for purpose in ("load", "block")}
    channels = caches["channels"]
    # What a channel that was there would have cost, had it been read like those that were not.
    a_load = calls["load"] / channels["misses"] if channels["misses"] else 0.0
    return {
        "seconds": round(took_s, 1),
        "requests": sum(len(times) for times in seen.took_s.values()),
        "statuses": dict(sorted(seen.statuses.items())),
        "positionsWithoutEarned": seen.unknown,
        "milliseconds": {
            look: {"p50": round(1000 * percentile(times, 0.5), 1), "p99": round(1000 * percentile(times, 0.99), 1)}
            for look, times in seen.took_s.items()
        },
        "caches": caches,
        "answersByEngine": {
            reason: of_engine("rtserver_answers_total", reason=reason) for reason in ("asked", "ahead")
        },
        "rpcCalls": calls,
        "rpcCallsAvoided": round(a_load * channels["hits"]),
    }


async def _run(options: argparse.Namespace) -> dict[str, Any]:
    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    rng = random.Random(options.seed)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        bench: BenchLab | None = None
        if options.url:
            port = urlsplit(options.url).port or 80
            served = Served([port], port)
            world = await known_world(session, options.url)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtserver-browsing-")))
            bench = await stack.enter_async_context(
                open_bench_lab(positions=options.positions, swaps=4, seed=options.seed, tell=tell)
            )
            await bench.lab.node.set_block_time(options.block_time)
            served = await stack.enter_async_context(serving(bench, folder, options.gateways))
            book = bench.lab.book
            world = [(owner, positions) for owner in bench.lab.owners if (positions := book.owned_by(owner))]
        rng.shuffle(world)

        async def trade() -> None:
            while bench is not None:
                await bench.trade()
                await asyncio.sleep(options.block_time)

        seen = Seen()
        browsers = [
            Browser(
                random.Random(rng.random()), session, url_of(_HOST, served.gateways[index % len(served.gateways)]),
                world, options, seen,
            )
            for index in range(options.browsers)
        ]  # fmt: skip
        async with asyncio.TaskGroup() as group:
            market = group.create_task(trade())
            tell(f"{options.browsers} browsers of {len(world)} owners, {options.seconds:g} s")
            warm_until = time.monotonic() + options.warm
            await asyncio.gather(*(browser.browse(warm_until) for browser in browsers))
            seen.clear()
            before, started = await counters(served), time.monotonic()
            until = started + options.seconds
            await asyncio.gather(*(browser.browse(until) for browser in browsers))
            after, took_s = await counters(served), time.monotonic() - started
            market.cancel()
        return {"machine": machine(), "options": vars(options), **figures(before, after, seen, took_s)}


def _print(found: dict[str, Any]) -> None:
    print(machine_line())
    statuses = ", ".join(f"{count} × {status}" for status, count in found["statuses"].items())
    print(f"{found['requests']} requests in {found['seconds']} s ({statuses})\n")
    print(f"{'cache':<16}{'hits':>10}{'misses':>10}{'hit rate':>10}")
    for cache, one in found["caches"].items():
        print(f"{cache:<16}{one['hits']:>10.0f}{one['misses']:>10.0f}{one['share']:>10.1%}")
    print(f"\n{'look':<16}{'p50 ms':>10}{'p99 ms':>10}")
    for look, times in found["milliseconds"].items():
        print(f"{look:<16}{times['p50']:>10.1f}{times['p99']:>10.1f}")
    calls, answers = found["rpcCalls"], found["answersByEngine"]
    print(f"\nRPC calls: {calls['load']:.0f} for loads, {calls['block']:.0f} for blocks;"
          f" {found['rpcCallsAvoided']} avoided by channels that were open")  # fmt: skip
    if answers["asked"]:
        print(f"answers by the engine: {answers['asked']:.0f} asked for, {answers['ahead']:.0f} ahead of that")
    print(f"positions told without what they earned: {found['positionsWithoutEarned']}")


def main() -> int:
    """Browse, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.browsing", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--warm", type=float, default=15.0, help="seconds before it counts")
    parser.add_argument("--gateways", type=int, default=0, help="0: one process does everything")
    parser.add_argument("--block-time", type=int, default=2, help="seconds")
    parser.add_argument("--url", help="of a server that runs; its chain and its limits are its own")
    parser.add_argument("--browsers", type=int, default=40)
    parser.add_argument("--pause", type=float, default=0.5, help="mean seconds between two looks of one")
    parser.add_argument("--positions", type=int, default=200, help="ten an owner")
    parser.add_argument("--zipf", type=float, default=1.0, help="how much more popular the popular are")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = uvloop.run(_run(options))
    if options.json:
        print(json.dumps(found))
    else:
        _print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
