"""What worth costs, on one core: revaluing after one price moves, a block that touches a part, samples, windows.

The real book, aggregator, engine and hub on a chain in memory, a channel for each position, all in range:

- **one price moves**: an HTTP source says another price for WETH; nothing else happens in the block. All positions that
  hold it are valued anew, told and written to clients.
- **a block touches**: swaps in pools with so many positions; the read of what they touched, the exact recompute, the
  values, the frames.
- **all are sampled**: an empty block so much later that each position's turn has come.
- **samples told**: what a history takes of each position, made anew.
- **earnings told**: windows, rates and gains of each position, as details show them.

Times are CPU time of the thread that does the work, the garbage collector's included.

    python -m bench.worth [--positions 50000] [--touched 10000] [--repeats 5] [--profile]
"""

import argparse
import cProfile
import gc
import pstats
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from bench.common import machine_line
from bench.common_chain import WETH, InMemoryChain
from bench.recompute import World
from rtserver.domain.chain import Header, Log
from rtserver.domain.ids import BlockHash, ChainId, TokenId
from rtserver.domain.update import BlockUpdate
from rtserver.obs.collector import COLLECTOR
from rtserver.protocols.channels import PositionChannel
from rtserver.worth.aggregator import PricePolicy
from rtserver.worth.dollars import dollars
from rtserver.worth.earnings import earnings_view
from rtserver.worth.quotes import Quote

__all__ = ["main"]

_CHAIN: Final = ChainId(31337)
_KIND: Final = "uniswap-v3"
_SOURCE: Final = "coingecko"
_CHANNELS_A_CLIENT: Final = 5
# A position's turn comes every five minutes.
_ROUND_S: Final = 600


class Bench:
    """The server's parts on a chain that stands still unless it is told to move."""

    def __init__(self, positions: int) -> None:
        self.chain = InMemoryChain(positions=positions, owners=max(positions // 5, 1), in_range=1.0, seed=1)
        self.ids = [TokenId(token_id) for token_id in self.chain.nfts]
        gc.collect()
        gc.freeze()
        policy = PricePolicy(order=(_SOURCE, "pools"), max_age_s={_SOURCE: 1 << 30})
        channels = [PositionChannel(_CHAIN, _KIND, token_id) for token_id in self.ids]
        self.world = World(self.chain, channels, _CHANNELS_A_CLIENT, policy)
        self._number, self._now = 1_000_000, self.chain.head().timestamp
        self._cents = 300_000
        self.offer()
        self.step([])

    def offer(self) -> None:
        """Have the source say another price."""
        self._cents += 1
        price = dollars(self._cents, -2)
        assert price is not None
        self.world.pricer.offer(_SOURCE, {WETH: Quote(price, int(time.time()))})

    def step(self, logs: Sequence[Log], later_s: int = 1) -> BlockUpdate:
        """Take a block with these logs through to the clients."""
        self._number += 1
        self._now += later_s
        block_hash, world = BlockHash(f"0x{self._number:064x}"), self.world
        header = Header(
            number=self._number, hash=block_hash, parent_hash=BlockHash(f"0x{self._number - 1:064x}"),
            timestamp=self._now, logs_bloom=0,
        )  # fmt: skip
        world.core.fold(block_hash, logs)
        while not world.core.is_settled():
            plan = world.core.plan(0)
            world.core.absorb(plan, self.chain.answer(plan.calls))
        update = world.core.evaluate(header, None, is_new_head=True)
        world.hub.publish(update)
        world.core.forget([header])
        return update

    def touching(self, count: int) -> list[Log]:
        """Move all pools, and return the swaps of pools with about so many positions together."""
        sizes = {pool.address: len(pool.nfts) for pool in self.chain.pools.values()}
        taken, total = [], 0
        for log in sorted(self.chain.mine(), key=lambda log: sizes[log.address]):
            if total + sizes[log.address] <= count * 1.02:
                taken.append(log)
                total += sizes[log.address]
        return taken


def _changed(update: BlockUpdate) -> int:
    return sum(len(change.patch) + len(change.set) for change in update.changes.values()) + sum(
        len(batch.texts) for batch in update.lone
    )


def _measure(
    name: str,
    repeats: int,
    act: Callable[[], int],
    profile: cProfile.Profile | None,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Print a row: how many positions, microseconds each, milliseconds in all; medians."""
    prepare()
    act()
    each, total, count = [], [], 0
    for _ in range(repeats):
        prepare()
        if profile is not None:
            profile.enable()
        started = time.thread_time_ns()
        count = act()
        spent = time.thread_time_ns() - started
        if profile is not None:
            profile.disable()
        each.append(spent / 1e3 / count)
        total.append(spent / 1e6)
    median = statistics.median(each)
    print(
        f"| {name} | {count:,} | {median:.2f} | {min(each):.2f} to {max(each):.2f} | {statistics.median(total):.0f} "
        f"| {1e6 / median:,.0f} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="bench.worth", description=__doc__.split("\n")[0])
    parser.add_argument("--positions", type=int, default=50_000)
    parser.add_argument("--touched", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="also tell where the time goes; figures are then slower")
    options = parser.parse_args(arguments)
    gc.set_threshold(*COLLECTOR)  # as the server does
    print(f"… {options.positions:,} positions are opened", file=sys.stderr, flush=True)
    bench = Bench(options.positions)
    book, prices = bench.world.book, bench.world.pricer

    def one_price() -> int:
        bench.offer()
        return _changed(bench.step([]))

    logs: list[Log] = []

    def prepare() -> None:
        logs[:] = bench.touching(options.touched)

    def a_block() -> int:
        return _changed(bench.step(logs))

    def turns() -> int:
        bench.step([], _ROUND_S)
        return len(bench.ids)

    def told() -> int:
        return len(book.samples(bench.ids))

    def details() -> int:
        part = bench.ids[:5_000]
        for token_id in part:
            earnings_view(book.earnings(token_id), book.life(token_id), prices.prices)
        return len(part)

    profile = cProfile.Profile() if options.profile else None
    print("| | positions | µs each | from, to | ms | a second |")
    print("|---|---|---|---|---|---|")
    _measure("one price moves", options.repeats, one_price, profile)
    _measure("a block touches", options.repeats, a_block, profile, prepare)
    _measure("all are sampled", options.repeats, turns, profile)
    _measure("samples told", options.repeats, told, profile)
    _measure("earnings told", options.repeats, details, profile)
    print(f"\n{machine_line()}")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    return 0


if __name__ == "__main__":
    sys.exit(main())
