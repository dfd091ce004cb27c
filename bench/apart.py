"""What it costs to compute and deliver in two processes: CPU a step, and bytes through Redis, beside one process.

One channel each for some owners, each with some clients on real socket pairs; every step changes every channel by a
patch of about 300 bytes. Three parts, in turns, in one process and on one core: the hub of a single process takes a
step; an engine's ledger takes it and encodes what goes to Redis; a gateway decodes what it hears and delivers it. Needs
`redis-server` on the PATH for the bytes, and for the time that publishing takes.

All times are CPU time of this process, which doesn't include Redis' own.

    python -m bench.apart [--channels 500] [--clients 2] [--steps 64] [--turns 5]
"""

import argparse
import asyncio
import json
import secrets
import socket
import statistics
import time
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis

from bench.common import machine_line
from bench.common_redis import own_redis
from bench.fanout_process import raise_file_limit
from rtserver.broker.redis_link import RedisBroker
from rtserver.broker.steps import Heard
from rtserver.domain.chain import Header
from rtserver.domain.diff import State
from rtserver.domain.ids import BlockHash, ChainId, TokenId
from rtserver.domain.update import BlockUpdate, LonePatches
from rtserver.hub.hub import Hub
from rtserver.hub.ledger import Ledger
from rtserver.hub.limits import Limits
from rtserver.hub.relay import Relay
from rtserver.hub.session import Session
from rtserver.obs.metrics import Metrics
from rtserver.protocols.channels import PositionChannel

_CHAIN: Final = ChainId(1)
_TTL_MS: Final = 600_000
_LIVE_S: Final = 10.0


class Sink:
    """A client's end: a socket pair whose other side is emptied between steps, on no clock."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.setblocking(False)

    def write(self, data: bytes) -> None:
        with suppress(BlockingIOError):
            self.near.send(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.near.close()

    def drain(self) -> None:
        with suppress(BlockingIOError):
            while self.far.recv(1 << 16):
                pass


class Nobody:
    """Takes a hub's wishes."""

    def want(self, channel: Any) -> None: ...
    def unwant(self, channel: Any) -> None: ...


def header(number: int) -> Header:
    digits = f"{number:064x}"
    parent = BlockHash(f"0x{number - 1:064x}")
    return Header(number=number, hash=BlockHash("0x" + digits), parent_hash=parent, timestamp=number, logs_bloom=0)


def update(names: list[str], number: int) -> BlockUpdate:
    """Return a step that changes each channel as a moved pool does."""
    fields = {"tick": number, "price": f"2972.05685512789{number}", "valueUSD": f"42270.{number % 90 + 10}"}
    amounts = {f"amount{index}": f"{10_642_756_823_091_943_693 + number}" for index in range(6)}
    text = json.dumps(fields | amounts, separators=(",", ":"))
    step = BlockUpdate(chain_id=_CHAIN, header=header(number))
    step.lone.append(LonePatches(1, names, [text] * len(names)))
    return step


def opening(names: list[str]) -> BlockUpdate:
    state: State = {
        "1": {"tick": 0, "price": "0", "valueUSD": "0", "token0": {"symbol": "A"}, "pool": "0x" + "ab" * 20}
    }
    return BlockUpdate(chain_id=_CHAIN, header=header(100), opened=dict.fromkeys(names, state))


def join(hub: Hub, channels: list[PositionChannel], clients: int) -> list[Sink]:
    sinks = []
    for channel in channels:
        for _ in range(clients):
            sink = Sink()
            session = Session(secrets.token_hex(4), sink, time.monotonic(), lambda code: None, sink.near.send)
            hub.open(session)
            hub.subscribe(session, channel, 1, None)
            sinks.append(sink)
    return sinks


async def measure(url: str, *, channels: int, clients: int, steps: int, turns: int) -> dict[str, float]:
    """Return medians over the turns, in microseconds of CPU a channel and step, and Redis' own count of bytes."""
    wanted = [PositionChannel(_CHAIN, "uniswap-v3", TokenId(number)) for number in range(channels)]
    names = [channel.name for channel in wanted]
    single = Hub(Nobody(), Limits(), Metrics())
    singles = join(single, wanted, clients)
    single.publish(opening(names))

    broker = RedisBroker(url)
    link = broker.chain(_CHAIN)
    ledger = Ledger(_CHAIN)
    metrics = Metrics()
    relay = Relay(_CHAIN, "bench", hub := Hub(relay_of := _Later(), Limits(), metrics), metrics)
    relay_of.relay = relay
    apart = join(hub, wanted, clients)
    ledger.take(opening(names))
    token = await link.acquire("bench", _TTL_MS)
    assert token is not None
    heard: asyncio.Queue[Heard | None] = asyncio.Queue()

    async def listen() -> None:
        async for one in link.steps():
            heard.put_nowait(one)

    listening = asyncio.create_task(listen())
    await heard.get()
    number = 0
    for step in ledger.begin_run():
        number += 1
        await link.publish(token, number, step)
        await heard.get()
    relay.listen()
    async with asyncio.timeout(_LIVE_S):
        # A run that was first heard of by reading is entered once the wishes are known to it: the second time round.
        while not relay.is_live:
            relay.announced(*relay.next_wishes(), time.monotonic() + 600, are_all_there=True)
            while (places := relay.next_read()) is not None:
                relay.read(await link.read(places))
            await asyncio.sleep(0.01)

    took: dict[str, list[float]] = {"single": [], "ledger": [], "publish": [], "gateway": []}
    async with Redis.from_url(url) as redis:
        before = await redis.info("stats")
        block = 100
        for _ in range(turns):
            sums = dict.fromkeys(took, 0.0)
            for _ in range(steps):
                block += 1
                change = update(names, block)
                began = time.process_time()
                single.publish(change)
                sums["single"] += time.process_time() - began
                began = time.process_time()
                published = ledger.take(change)
                sums["ledger"] += time.process_time() - began
                number += 1
                began = time.process_time()
                await link.publish(token, number, published)
                sums["publish"] += time.process_time() - began
                one = await heard.get()
                assert one is not None
                began = time.process_time()
                relay.hear(one)
                sums["gateway"] += time.process_time() - began
                for sink in (*singles, *apart):
                    sink.drain()
            for part, seconds in sums.items():
                took[part].append(seconds / steps / channels * 1e6)
        after = await redis.info("stats")
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await broker.aclose()
    result = {part: statistics.median(values) for part, values in took.items()}
    changes = turns * steps * channels
    result["bytes_in"] = (after["total_net_input_bytes"] - before["total_net_input_bytes"]) / changes
    result["bytes_out"] = (after["total_net_output_bytes"] - before["total_net_output_bytes"]) / changes
    return result


class _Later:
    """A hub's wishes, for a relay that is made after it."""

    relay: Relay

    def want(self, channel: Any) -> None:
        self.relay.want(channel)

    def unwant(self, channel: Any) -> None:
        self.relay.unwant(channel)


async def _main(url: str, args: argparse.Namespace) -> None:
    found = await measure(url, channels=args.channels, clients=args.clients, steps=args.steps, turns=args.turns)
    print(machine_line())
    print(f"{args.channels} channels, {args.clients} clients each, {args.steps} steps, median of {args.turns} turns")
    print("CPU a channel and step, µs:")
    for part in ("single", "gateway", "ledger", "publish"):
        print(f"  {part:8} {found[part]:8.2f}")
    print(f"gateway over single process: {(found['gateway'] / found['single'] - 1) * 100:+.1f} %")
    print(f"through Redis, bytes a change: {found['bytes_in']:.0f} in, {found['bytes_out']:.0f} out to one gateway")


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=500)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    raise_file_limit()
    with own_redis() as url:
        asyncio.run(_main(url, args))


if __name__ == "__main__":
    main()
