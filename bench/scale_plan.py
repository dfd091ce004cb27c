"""What many clients need, reckoned from what a few cost. Pure: figures in, figures and the sums behind them out."""

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["Costs", "Demand", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Measured. Microseconds of CPU on one core, unless a name says otherwise.

    Args:
        compute_us: Engine, a position that a block moves: reading in and exact recompute.
        publish_us: Engine, a channel that a block changes: stream, encoding, Redis call.
        redis_us: Redis, a changed channel: script and history.
        redis_gateway_us: Redis, a changed channel, for each gateway that hears it.
        redis_in: Bytes into Redis, a changed channel.
        redis_out: Bytes out of Redis, a changed channel, for each gateway.
        redis_entry: Bytes that Redis keeps of a change.
        heard_us: Gateway, a changed channel, however many listen.
        frame_us: Gateway, a frame to a client.
        join_us: Gateway, a client that comes or comes back.
        connection_kib: Gateway, a client.
        state_bytes: An owner's state as JSON, in Redis.
        mirror_bytes: The same at a gateway, as objects.
    """

    compute_us: float
    publish_us: float
    redis_us: float
    redis_gateway_us: float
    redis_in: float
    redis_out: float
    redis_entry: float
    heard_us: float
    frame_us: float
    join_us: float
    connection_kib: float
    state_bytes: float
    mirror_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is asked for.

    Args:
        clients: Sockets, one owner each.
        owners: Channels.
        positions: Positions an owner.
        moved: The share of owners that a block changes.
        block_s: Seconds between blocks.
        within_s: From publishing until the last socket.
        back_s: After the end of a gateway until the others have all of its clients.
        kept_s: For how long Redis keeps changes.
    """

    clients: int = 1_000_000
    owners: int = 100_000
    positions: int = 5
    moved: float = 0.25
    block_s: float = 12.0
    within_s: float = 1.0
    back_s: float = 10.0
    kept_s: float = 120.0


def plan(costs: Costs, demand: Demand) -> tuple[dict[str, Any], list[str]]:
    """Return what it takes, and the sums in lines."""
    changed = demand.owners * demand.moved
    frames = demand.clients * demand.moved
    within = demand.within_s
    lines = [
        f"{demand.clients:,} clients on {demand.owners:,} owners of {demand.positions} positions; a block every"
        f" {demand.block_s:g} s changes {demand.moved:.0%} of the owners; in the last socket {within:g} s after it is"
        " published.",
        f"A block: {demand.owners:,} × {demand.moved:g} = {changed:,.0f} changed channels,"
        f" {demand.clients:,} × {demand.moved:g} = {frames:,.0f} frames.",
    ]

    heard_s = changed * costs.heard_us / 1e6
    sent_s = frames * costs.frame_us / 1e6
    if heard_s >= within:
        lines.append(f"A gateway hears {changed:,.0f} × {costs.heard_us:.1f} µs = {heard_s:.2f} s: over {within:g} s.")
        return {"gateways": None}, lines
    for_blocks = math.ceil(sent_s / (within - heard_s))
    joins_s = demand.clients * costs.join_us / 1e6
    for_ends = math.ceil(0.5 + math.sqrt(0.25 + joins_s / demand.back_s))
    gateways = max(for_blocks, for_ends)
    lines += [
        f"Gateways: each hears all, {changed:,.0f} × {costs.heard_us:.1f} µs = {heard_s:.2f} s; all send"
        f" {frames:,.0f} × {costs.frame_us:.1f} µs = {sent_s:.2f} s; {sent_s:.2f} / ({within:g} − {heard_s:.2f}) →"
        f" {for_blocks} for the blocks.",
        f"  If one ends, the others have its clients after {demand.back_s:g} s: {demand.clients:,} ×"
        f" {costs.join_us:.0f} µs = {joins_s:.0f} s; {joins_s:.0f} / (n (n − 1)) ≤ {demand.back_s:g} → {for_ends}."
        f" So {gateways} of a core each, {demand.clients / gateways:,.0f} clients on each.",
    ]
    busy = (heard_s + sent_s / gateways) / demand.block_s
    mirrors = min(demand.owners, demand.clients / gateways)
    memory_gib = (demand.clients / gateways * costs.connection_kib + mirrors * costs.mirror_bytes / 1024) / 1024**2
    lines.append(
        f"  Each is busy for {busy:.0%} of the time, and takes {demand.clients / gateways:,.0f} ×"
        f" {costs.connection_kib:.1f} KiB + {mirrors:,.0f} × {costs.mirror_bytes:,.0f} B = {memory_gib:.2f} GiB"
        " (without the kernel's socket buffers)."
    )

    computed_s = changed * demand.positions * costs.compute_us / 1e6
    published_s = changed * costs.publish_us / 1e6
    engines = math.ceil((computed_s + published_s) / within)
    lines.append(
        f"Engine: {changed * demand.positions:,.0f} positions × {costs.compute_us:.1f} µs = {computed_s:.2f} s, and"
        f" {changed:,.0f} channels × {costs.publish_us:.1f} µs = {published_s:.2f} s a block: {engines} of a core, or"
        f" {computed_s + published_s:.2f} s of one."
    )

    into, out = changed * costs.redis_in, changed * costs.redis_out * gateways
    redis_s = changed * (costs.redis_us + costs.redis_gateway_us * gateways) / 1e6
    masters = math.ceil(redis_s / within)
    entries = demand.kept_s / demand.block_s * demand.moved
    kept_gib = demand.owners * (costs.state_bytes + entries * costs.redis_entry) / 1024**3
    lines += [
        f"Redis: {changed:,.0f} × {costs.redis_in:,.0f} B = {into / 1e6:,.1f} MB in a block,"
        f" × {costs.redis_out:,.0f} B × {gateways} gateways = {out / 1e6:,.0f} MB out;"
        f" {into / demand.block_s / 1e6:,.1f} and {out / demand.block_s / 1e6:,.0f} MB/s.",
        f"  Its CPU: {changed:,.0f} × ({costs.redis_us:.1f} + {gateways} × {costs.redis_gateway_us:.2f}) µs ="
        f" {redis_s:.2f} s a block → {masters} masters of a core.",
        f"  Its memory: {demand.owners:,} × ({costs.state_bytes:,.0f} + {demand.kept_s:g} s / {demand.block_s:g} s ×"
        f" {demand.moved:g} × {costs.redis_entry:,.0f}) B = {kept_gib:.2f} GiB.",
        f"To clients: {frames:,.0f} frames a block, {frames / demand.block_s:,.0f} a second on the average.",
    ]
    return {
        "gateways": gateways, "clients_per_gateway": round(demand.clients / gateways), "gateway_busy": round(busy, 3),
        "gateway_gib": round(memory_gib, 2), "engine_s_per_block": round(computed_s + published_s, 2),
        "engines": engines, "redis_masters": masters, "redis_s_per_block": round(redis_s, 2),
        "redis_in_mb_per_s": round(into / demand.block_s / 1e6, 2),
        "redis_out_mb_per_s": round(out / demand.block_s / 1e6, 1), "redis_gib": round(kept_gib, 2),
    }, lines  # fmt: skip
