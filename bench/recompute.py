"""How long a block takes that moves every pool: exact recompute, diff and encode, on one core.

Builds the real book, engine and hub on a chain in memory, opens a channel for each position (and, in a second
run, one for each owner), then moves all pools block by block and times the two stages of a step: `compute`
(exact recompute, diff, the changes as JSON, which channels) and `deliver` (seq, ring, proof, frames, writing
them to clients in memory). Beside
them, in the same process: the bare arithmetic, and the straightforward way of doing the same. Every value is
checked against the formulas of domain.clmath, and sampled clients against their own copies.

The figure is the mean over a multiple of 16 blocks, because every 16th change of a channel proves its checksum.
All times are CPU time of the one thread that does the work: on a quiet machine the same as the clock's, and
on a shared one still comparable. They include the garbage collector's work.

    python -m bench.recompute [--positions 10000] [--blocks 16] [--json]
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.common import machine, machine_line
from bench.common_chain import FACTORY, MANAGER, STABLES, InMemoryChain, MemoryPool
from bench.common_floor import PlainPosition, bare_arithmetic, expected_fields, floor_inputs
from bench.common_ws import Frames
from rtserver.client.replica import Replica, Verdict
from rtserver.domain.chain import Log
from rtserver.domain.ids import Address, ChainId, TokenId
from rtserver.domain.update import BlockUpdate
from rtserver.engine.core import EngineCore
from rtserver.hub.hub import Hub
from rtserver.hub.limits import Limits
from rtserver.hub.session import Session
from rtserver.obs.collector import COLLECTOR
from rtserver.obs.metrics import Metrics
from rtserver.protocols.base import Book
from rtserver.protocols.channels import Channel, OwnerChannel, PositionChannel
from rtserver.protocols.registry import adapters
from rtserver.wire.messages import Block, Snapshot, decode_server
from rtserver.worth.aggregator import Aggregator, PricePolicy

__all__ = ["Row", "World", "main", "measure"]

_CHAIN: Final = ChainId(31337)
_KIND: Final = "uniswap-v3"
_CHANNELS_A_CLIENT: Final = 5
_OWNERS_SHARE: Final = 5
# Blocks before the clock counts: caches fill, and every field has been shown once.
_WARM_UP: Final = 2
_YARDSTICK_BLOCKS: Final = 4
# A book may be undone this deep; older blocks would have to be forgotten, as the engine's shell does.
_UNDO_BLOCKS: Final = 64
# Copies that are kept of what sampled clients were sent; proving them costs more than the server's own work.
_SAMPLED: Final = 20


class MemoryOutlet:
    """A client's transport that takes everything at once; keeps the frames of sampled clients."""

    __slots__ = ("count", "frames", "size")

    def __init__(self, *, keeps: bool) -> None:
        self.frames: list[bytes] | None = [] if keeps else None
        self.count = self.size = 0

    def write(self, data: bytes) -> None:
        """Take bytes."""
        self.count += 1
        self.size += len(data)
        if self.frames is not None:
            self.frames.append(data)

    def get_write_buffer_size(self) -> int:
        """Return 0: nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Return False: it stays open."""
        return False

    def abort(self) -> None:
        """Do nothing: there is no connection."""


@dataclass(slots=True)
class Row:
    """One run: microseconds of CPU per position, one number a block for each stage."""

    name: str
    positions: int
    blocks: int
    compute: list[float] = field(default_factory=list)
    deliver: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    changed: float = 0.0
    frames: int = 0
    frame_bytes: int = 0

    @property
    def all(self) -> list[float]:
        """Return compute + deliver of each block."""
        return [a + b for a, b in zip(self.compute, self.deliver, strict=True)]


class World:
    """The real book, engine and hub on a chain in memory, with every channel open."""

    def __init__(
        self, chain: InMemoryChain, channels: Sequence[Channel], per_client: int, policy: PricePolicy | None = None
    ) -> None:
        self.chain = chain
        self.metrics = Metrics()
        self.book: Book = adapters()[_KIND].build(_CHAIN, FACTORY, MANAGER, None, STABLES)
        self.pricer = Aggregator(_CHAIN, stablecoins=STABLES, clock=time.time, policy=policy)
        self.core = EngineCore(_CHAIN, {_KIND: self.book}, self.pricer)
        self.hub = Hub(self.core, Limits(channels=len(channels)), self.metrics)
        self.outlets: list[MemoryOutlet] = []
        groups = [channels[start : start + per_client] for start in range(0, len(channels), per_client)]
        step = max(len(groups) // _SAMPLED, 1)
        for index, group in enumerate(groups):
            outlet = MemoryOutlet(keeps=index % step == 0)
            self.outlets.append(outlet)
            session = Session(str(index), outlet, time.monotonic(), lambda _: None)
            self.hub.open(session)
            for channel in group:
                self.hub.subscribe(session, channel, None, None)
        self._open()

    def _open(self) -> None:
        head = self.chain.head()
        self.core.fold(head.hash, [])
        while (plan := self.core.plan(1000)).calls:
            self.core.absorb(plan, self.chain.answer(plan.calls))
        while (wanted := self.core.history_query()) is not None:
            book, query = wanted
            book.absorb_history(query, [])
        self.hub.publish(self.core.evaluate(head, None, is_new_head=True))
        if self.core.is_opening:
            raise RuntimeError("not every channel opened")

    def read(self, logs: Sequence[Log]) -> None:
        """Take in what the newest block touched, as the engine would from a node."""
        self.core.fold(self.chain.head().hash, logs)
        while not self.core.is_settled():
            plan = self.core.plan(0)
            self.core.absorb(plan, self.chain.answer(plan.calls))

    def cents(self, token: str) -> int:
        """Return a token's price as the server has it."""
        return self.pricer.prices[Address(token)]


def measure(name: str, *, positions: int, blocks: int, in_range: float, owners: bool, seed: int) -> Row:
    """Run one workload and return its figures; raises AssertionError where a value is not the formula's."""
    chain = InMemoryChain(positions=positions, owners=max(positions // _OWNERS_SHARE, 1), in_range=in_range, seed=seed)
    channels: list[Channel] = [PositionChannel(_CHAIN, _KIND, TokenId(token_id)) for token_id in chain.nfts]
    if owners:
        channels = [OwnerChannel(_CHAIN, owner) for owner in chain.owners]
    # The chain is the bench's, not the server's: its objects must not cost the garbage collector anything below.
    gc.collect()
    gc.freeze()
    world = World(chain, channels, 1 if owners else _CHANNELS_A_CLIENT)
    row = Row(name, positions, blocks)
    changed = 0
    for index in range(-_WARM_UP, blocks):
        written = sum(outlet.size for outlet in world.outlets), sum(outlet.count for outlet in world.outlets)
        mined, head = chain.mine(), chain.head()
        started = time.thread_time_ns()
        world.read(mined)
        settled = time.thread_time_ns()
        update = world.core.evaluate(head, None, is_new_head=True)
        evaluated = time.thread_time_ns()
        world.hub.publish(update)
        published = time.thread_time_ns()
        if index >= 0:
            row.read.append((settled - started) / 1e3 / positions)
            row.compute.append((evaluated - settled) / 1e3 / positions)
            row.deliver.append((published - evaluated) / 1e3 / positions)
            changed += _changed(update)
            row.frame_bytes += sum(outlet.size for outlet in world.outlets) - written[0]
            row.frames += sum(outlet.count for outlet in world.outlets) - written[1]
        del update
    _check_values(world)
    _check_copies(world)
    _yardsticks(world, row)
    gc.unfreeze()
    row.changed = changed / (positions * blocks)
    return row


def _yardsticks(world: World, row: Row) -> None:
    """Time the same on more blocks, bare and straightforward: after the real thing, so that neither pays for it."""
    plain = _plain_positions(world)
    bare = [(pool, floor_inputs(pool)) for pool in world.chain.pools.values()]
    prices = {pool.address: (world.cents(a), world.cents(b)) for pool, a, b in _tokens_of(world)}
    for index in range(_YARDSTICK_BLOCKS + 1):
        world.chain.mine()
        started = time.thread_time_ns()
        for pool, ranges in bare:
            bare_arithmetic(pool, ranges, *prices[pool.address])
        between = time.thread_time_ns()
        for one in plain:
            one.recompute(prices[one.nft.pool.address])
        ended = time.thread_time_ns()
        if index:  # the first block shows every field for the first time
            row.floor.append((between - started) / 1e3 / row.positions)
            row.plain.append((ended - between) / 1e3 / row.positions)


def _changed(update: BlockUpdate) -> int:
    objects = sum(len(change.patch) + len(change.set) for change in update.changes.values())
    return objects + sum(map(len, update.patched.values())) + sum(len(batch.texts) for batch in update.lone)


def _tokens_of(world: World) -> list[tuple[MemoryPool, str, str]]:
    """Return every pool with its tokens' addresses, as one of its positions shows them."""
    found = []
    for pool in world.chain.pools.values():
        if pool.nfts:
            view: Any = world.book.position(TokenId(pool.nfts[0].token_id))
            found.append((pool, view["token0"]["address"].lower(), view["token1"]["address"].lower()))
    return found


def _decimals(view: Any) -> tuple[int, int]:
    return view["token0"]["decimals"], view["token1"]["decimals"]


def _plain_positions(world: World) -> list[PlainPosition]:
    plain = []
    for token_id, nft in world.chain.nfts.items():
        view = world.book.position(TokenId(token_id))
        assert view is not None
        plain.append(PlainPosition(nft, dict(view), _decimals(view)))
    return plain


def _check_values(world: World) -> None:
    """Prove that every served value is the formula's, at the last block."""
    cents = {pool.address: (world.cents(a), world.cents(b)) for pool, a, b in _tokens_of(world)}
    for token_id, nft in world.chain.nfts.items():
        view = world.book.position(TokenId(token_id))
        assert view is not None
        for name, value in expected_fields(nft, _decimals(view), cents[nft.pool.address]).items():
            if view[name] != value:
                raise AssertionError(f"position {token_id} {name}: {view[name]!r}, by the formula {value!r}")


def _check_copies(world: World) -> None:
    """Prove that sampled clients, from their frames alone, hold what the book shows."""
    for outlet in world.outlets:
        if outlet.frames is None:
            continue
        copies: dict[str, Replica] = {}
        for text in Frames().take(b"".join(outlet.frames)):
            message = decode_server(text)
            if isinstance(message, Snapshot):
                copy = copies.setdefault(message.channel, Replica(message.channel))
                verdicts = [copy.take(message)]
            elif isinstance(message, Block):
                verdicts = [copies[change.channel].apply(change, message.block) for change in message.changes]
            else:
                continue
            if any(verdict is not Verdict.APPLIED for verdict in verdicts):
                raise AssertionError(f"a client could not apply a frame: {verdicts}")
        for channel, copy in copies.items():
            for view in copy.state.values():
                if view != world.book.position(TokenId(int(str(view["tokenId"])))):
                    raise AssertionError(f"{channel}: a client's copy differs from the book")


# --- the program ------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="bench.recompute", description=__doc__.split("\n")[0])
    parser.add_argument("--positions", type=int, default=10_000)
    parser.add_argument("--blocks", type=int, default=16, help="measured blocks per run, at most 62")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)
    gc.set_threshold(*COLLECTOR)  # as the server does
    workloads = (
        ("a channel each, all in range", 1.0, False),
        ("a channel each, 70 % in range", 0.7, False),
        ("a channel an owner, all in range", 1.0, True),
    )
    if not 1 <= options.blocks <= _UNDO_BLOCKS - _WARM_UP:
        parser.error(f"--blocks is 1 to {_UNDO_BLOCKS - _WARM_UP}")
    rows = []
    for name, in_range, owners in workloads:
        if not options.json:
            print(f"… {name}", file=sys.stderr, flush=True)
        rows.append(
            measure(
                name,
                positions=options.positions,
                blocks=options.blocks,
                in_range=in_range,
                owners=owners,
                seed=options.seed,
            )
        )
    print(json.dumps(_report(rows), indent=1) if options.json else _table(rows))
    return 0


def _report(rows: Sequence[Row]) -> dict[str, Any]:
    first = rows[0]
    us = statistics.fmean(first.compute)
    return {
        "bench": "recompute",
        "us_per_position": round(us, 3),
        "positions_per_s": round(1e6 / us),
        "us_per_position_delivered": round(statistics.fmean(first.all), 3),
        "ratio_to_floor": round(us / statistics.fmean(first.floor), 3),
        "ratio_to_plain": round(us / statistics.fmean(first.plain), 3),
        "positions": first.positions,
        "blocks": first.blocks,
        "checked": "every value against domain.clmath; sampled clients' copies against the book",
        "machine": machine(),
        "rows": [_row_json(row) for row in rows],
    }


def _row_json(row: Row) -> dict[str, Any]:
    stages = {name: values for name, values in asdict(row).items() if isinstance(values, list)} | {"all": row.all}
    return {
        "name": row.name,
        "changed_share": round(row.changed, 3),
        "bytes_per_position": round(row.frame_bytes / row.blocks / row.positions, 1),
        "frames_per_block": row.frames / row.blocks,
        "us_per_position": {
            name: {
                "min": round(min(values), 3),
                "median": round(statistics.median(values), 3),
                "mean": round(statistics.fmean(values), 3),
            }
            for name, values in stages.items()
        },
    }


def _table(rows: Sequence[Row]) -> str:
    lines = [f"recompute on {machine_line()}", ""]
    for row in rows:
        us = statistics.fmean(row.all)
        lines += [
            f"{row.name}: {row.positions} positions, {row.blocks} blocks, all pools move; "
            f"{row.changed:.0%} change, {row.frame_bytes / row.blocks / row.positions:.0f} bytes each",
            "                     min   median     mean   µs of CPU a position and block",
        ]
        for name, values in (
            ("compute", row.compute),
            ("deliver", row.deliver),
            ("all", row.all),
            ("(bare arithmetic)", row.floor),
            ("(straightforward)", row.plain),
            ("(fold and absorb)", row.read),
        ):
            lines.append(
                f"  {name:<18} {min(values):6.2f} {statistics.median(values):8.2f} {statistics.fmean(values):8.2f}"
            )
        lines += [
            f"  {1e6 / us:,.0f} positions a second; {us / statistics.fmean(row.floor):.2f} × the bare arithmetic,"
            f" {us / statistics.fmean(row.plain):.2f} × the straightforward way",
            "",
        ]
    return "\n".join([*lines, "every value equals domain.clmath; sampled clients' copies equal the book"])


if __name__ == "__main__":
    sys.exit(main())
