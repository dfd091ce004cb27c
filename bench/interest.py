"""What churn costs: gateways whose clients come and go, and one engine that follows what is wished for.

Each simulated gateway has a set of channels, two gateways to a channel, and changes some of them each round, all in one
announcement, as `broker/following.py` makes them. Then the engine looks, as `broker/leading.py` does every 5 s. Counted
are the scripts that Redis was called with, by its own statistics, and CPU time: of Redis, and of the look in this
process.
What an engine hears between its looks, of channels that are not there, is not in it: nobody listens here.

    python -m bench.interest [--gateways 100 1000 10000] [--channels 20] [--changes 5] [--rounds 4]
"""

import argparse
import asyncio
import json
import random
import secrets
import time
from contextlib import aclosing

from redis.asyncio import Redis

from bench.common import machine_line
from bench.common_redis import own_redis
from rtserver.broker.redis_link import RedisBroker, RedisLink

_TTL_MS = 600_000
# Announcements under way at once: one connection each.
_AT_ONCE = 32
_SHARED_BY = 2


async def _cpu_s(redis: Redis) -> float:
    used = await redis.info("cpu")
    return float(used["used_cpu_sys"]) + float(used["used_cpu_user"])


async def _calls(redis: Redis) -> int:
    stats = await redis.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))


class _Crowd:
    """Gateways and what they wish for."""

    def __init__(self, link: RedisLink, count: int, channels: int, pool: int) -> None:
        self._link = link
        self._chance = random.Random(1)
        self._pool = [f"position:1:uniswap-v3:{number}" for number in range(pool)]
        self._sets = {f"g{number}": set(self._chance.sample(self._pool, channels)) for number in range(count)}

    async def begin(self) -> None:
        """Announce everything."""
        await self._announce({name: (wished, set()) for name, wished in self._sets.items()})

    async def change(self, count: int) -> None:
        """Change some channels of each gateway: an announcement each."""
        changes: dict[str, tuple[set[str], set[str]]] = {}
        for name, wished in self._sets.items():
            gone = set(self._chance.sample(sorted(wished), count))
            come = set(self._chance.sample(self._pool, count)) - wished
            self._sets[name] = (wished - gone) | come
            changes[name] = (come, gone)
        await self._announce(changes)

    async def _announce(self, changes: dict[str, tuple[set[str], set[str]]]) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str, come: set[str], gone: set[str]) -> None:
            async with gate:
                await self._link.announce(name, come, gone, _TTL_MS)

        await asyncio.gather(*(one(name, *change) for name, change in changes.items()))

    @property
    def wanted(self) -> set[str]:
        """Return what somebody wishes for."""
        return set[str]().union(*self._sets.values())


async def measure(url: str, *, gateways: int, channels: int, changes: int, rounds: int) -> dict[str, float]:
    """Return means over the rounds: calls and Redis CPU of the gateways, calls and CPU of the engine's look."""
    async with aclosing(RedisBroker(url, f"b{secrets.token_hex(4)}")) as broker, Redis.from_url(url) as redis:
        link = broker.chain(1)
        # Few enough share a channel that some lose their last gateway, and get another, in each round.
        crowd = _Crowd(link, gateways, channels, max(gateways // _SHARED_BY, 10) * channels)
        await crowd.begin()
        found = await link.interests()
        at, wanted = found.cursor, set(found.added)
        sums = dict.fromkeys(("announcements", "redis_ms", "look_calls", "look_redis_ms", "look_ms", "told"), 0.0)
        for _ in range(rounds):
            calls, cpu = await _calls(redis), await _cpu_s(redis)
            await crowd.change(changes)
            sums["announcements"] += await _calls(redis) - calls
            sums["redis_ms"] += (await _cpu_s(redis) - cpu) * 1000
            calls, cpu = await _calls(redis), await _cpu_s(redis)
            began = time.process_time()
            found = await link.interests(at)
            wanted = set(found.added) if found.is_whole else (wanted - found.removed) | found.added
            sums["look_ms"] += (time.process_time() - began) * 1000
            at = found.cursor
            sums["look_calls"] += await _calls(redis) - calls
            sums["look_redis_ms"] += (await _cpu_s(redis) - cpu) * 1000
            sums["told"] += len(found.added) + len(found.removed)
            assert wanted == crowd.wanted, "the engine knows what is wished for"
    return {name: total / rounds for name, total in sums.items()} | {"wanted": float(len(wanted))}


async def _main(url: str, args: argparse.Namespace) -> None:
    results = {}
    for count in args.gateways:
        results[count] = await measure(
            url, gateways=count, channels=args.channels, changes=args.changes, rounds=args.rounds
        )
    if args.json:
        print(json.dumps(results))
        return
    print(machine_line())
    print(
        f"{args.channels} channels a gateway, {args.changes} of them changed in a round; means of {args.rounds} rounds"
    )
    print("gateways  wanted  announcements  Redis CPU, ms | the engine's look: told  calls  Redis CPU, ms  own CPU, ms")
    for count, one in results.items():
        print(
            f"{count:8} {one['wanted']:7.0f} {one['announcements']:14.0f} {one['redis_ms']:14.1f} |"
            f" {one['told']:23.0f} {one['look_calls']:6.1f} {one['look_redis_ms']:14.1f} {one['look_ms']:12.1f}"
        )


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateways", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--channels", type=int, default=20)
    parser.add_argument("--changes", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with own_redis() as url:
        asyncio.run(_main(url, args))


if __name__ == "__main__":
    main()
