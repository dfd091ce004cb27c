"""One thing at a time: many channels in one frame, a client that does not read, a block that moves everything.

Each scenario starts what it needs, measures, and returns its figures and a few lines that say them.
"""

import argparse
import json
import random
import statistics
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from bench.common import percentile
from bench.fanout_contenders import FLOOR, OURS
from bench.fanout_load import Loader
from bench.fanout_slow import measure_slow
from bench.fanout_turns import WARM_UP, Seat, open_seat

__all__ = ["SCENARIOS", "position_channels", "write_channels"]

Tell: TypeAlias = Callable[[str], None]
Result: TypeAlias = tuple[dict[str, Any], str]
Scenario: TypeAlias = Callable[[argparse.Namespace, Loader, Path, Tell], Awaitable[Result]]

_ANSWER_S: Final = 30.0
# See fanout.py: time to deliver, but less than what makes a socket idle.
_INTERVAL_S: Final = 0.15
_WARM_UP_S: Final = 0.05


def position_channels(count: int, chain_id: int = 1) -> list[str]:
    """Return the names of so many position channels."""
    return [f"position:{chain_id}:uniswap-v3:{token_id}" for token_id in range(1, count + 1)]


def write_channels(folder: Path, clients: Sequence[Sequence[str]]) -> list[str]:
    """Write each client's channels where the load generator finds them; return its options."""
    file = folder / "channels"
    file.write_text("".join(" ".join(names) + "\n" for names in clients))
    return ["--channels", str(file)]


# --- many channels, one frame -----------------------------------------------------------------------------


async def _segments(seat: Seat) -> int:
    return int((await seat.server.ask('{"do":"stats"}', "stats", _ANSWER_S))["segments"])


async def _channels(options: argparse.Namespace, loader: Loader, folder: Path, tell: Tell) -> Result:
    """Compare clients with 1, 10 and 100 channels: frames, segments and CPU per client and block."""
    count = (options.clients or [1000])[0]
    rng = random.Random(1)
    rows = []
    for each in (1, 10, 100):
        pool = position_channels(max(count, 200))
        clients = [rng.sample(pool, each) for _ in range(count)]
        async with AsyncExitStack() as stack:
            seat = await open_seat(stack, OURS, loader, count, folder, options=write_channels(folder, clients))
            tell(f"{count} clients with {each} channels in {seat.open_s:.1f} s")
            await seat.broadcast(count=WARM_UP, interval_s=_WARM_UP_S, pad=100)
            segments = await _segments(seat)
            spent, report = await seat.sampled(count=options.broadcasts, interval_s=_INTERVAL_S, pad=100)
            segments = await _segments(seat) - segments
            if report["gaps"]:
                raise RuntimeError(f"{report['gaps']} changes did not continue what their client had")
            size = report["bytes"] / report["frames"]
            seat.server.stop()
            floor = await open_seat(stack, FLOOR, loader, count, folder)
            await floor.broadcast(count=WARM_UP, interval_s=_WARM_UP_S, bytes=round(size) - 4)
            bare, _ = await floor.sampled(count=options.broadcasts, interval_s=_INTERVAL_S, bytes=round(size) - 4)
        us, bare_us = (statistics.median(samples) / 1e3 / count for samples in (spent, bare))
        rows.append(
            {
                "channels": each,
                "clients": count,
                "frames_per_client_and_block": report["frames"] / count / options.broadcasts,
                "segments_per_client_and_block": round(segments / count / options.broadcasts, 4),
                "bytes_per_frame": round(size),
                "cpu_us_per_client_and_block": round(us, 2),
                "cpu_us_per_channel": round(us / each, 3),
                "floor_cpu_us_same_bytes": round(bare_us, 2),
                "kib_per_connection": round(seat.kib_per_connection, 1),
            }
        )
    lines = ["channels   frames segments    bytes   µs CPU   µs a channel   µs of the floor   (per client and block)"]
    lines += [
        f"{row['channels']:8} {row['frames_per_client_and_block']:8.2f} {row['segments_per_client_and_block']:8.3f}"
        f" {row['bytes_per_frame']:8} {row['cpu_us_per_client_and_block']:8.1f} {row['cpu_us_per_channel']:14.2f}"
        f" {row['floor_cpu_us_same_bytes']:17.1f}"
        for row in rows
    ]
    return {"scenario": "channels", "rows": rows}, "\n".join(lines)


# --- a block that moves everything ------------------------------------------------------------------------

_POSITIONS: Final = 50_000
_EACH: Final = 10


async def _full(options: argparse.Namespace, loader: Loader, folder: Path, tell: Tell) -> Result:
    """Time a block that moves every position, from its logs to the last socket, with the real book."""
    count = (options.clients or [10_000])[0]
    positions = min(_POSITIONS, count * _EACH // 2)
    rng = random.Random(1)
    # Every position is watched, and each by two clients if there are twice as many seats.
    deck = [name for _ in range(-(-count * _EACH // positions)) for name in position_channels(positions)]
    rng.shuffle(deck)
    clients = [sorted(set(deck[start : start + _EACH])) for start in range(0, count * _EACH, _EACH)]
    contender = replace(OURS, module="bench.fanout_full", environment={"BENCH_POSITIONS": str(positions)})
    async with AsyncExitStack() as stack:
        tell(f"building a chain of {positions} positions and connecting {count} clients")
        seat = await open_seat(stack, contender, loader, count, folder, options=write_channels(folder, clients))
        tell(f"all have their first values after {seat.open_s:.1f} s")
        stages: list[dict[str, Any]] = []
        reports: list[dict[str, Any]] = []
        for index in range(-2, options.broadcasts):
            await seat.load.reset()
            seat.server.tell(json.dumps({"do": "block"}))
            report = await seat.load.wait(1, _ANSWER_S)
            stage = await seat.server.hear("done", _ANSWER_S)
            if report["gaps"] or report["frames"] != count:
                raise RuntimeError(f"{report['frames']} frames for {count} clients, {report['gaps']} gaps")
            if index >= 0:
                stages.append(stage)
                reports.append(report)
    lasts = [report["broadcasts"][0][3] for report in reports]
    result: dict[str, Any] = {
        "scenario": "full", "clients": count, "positions": positions, "channels_per_client": _EACH,
        "blocks": len(lasts), "last_p50_ms": round(percentile(lasts, 0.5), 1),
        "last_p99_ms": round(percentile(lasts, 0.99), 1),
        "bytes_per_frame": round(statistics.fmean(report["bytes"] / report["frames"] for report in reports)),
        "changed": min(stage["changed"] for stage in stages), "open_s": round(seat.open_s, 1),
    }  # fmt: skip
    for name in ("read_ms", "evaluate_ms", "publish_ms", "cpu_ms"):
        result[name] = round(statistics.median(stage[name] for stage in stages), 1)
    text = (
        f"{count} clients × {_EACH} positions, {positions} distinct, one block moves {result['changed']} of them:\n"
        f"last socket p50 {result['last_p50_ms']} ms, p99 {result['last_p99_ms']} ms over {len(lasts)} blocks;\n"
        f"fold and absorb {result['read_ms']} ms, recompute and diff {result['evaluate_ms']} ms,"
        f" encode and write {result['publish_ms']} ms;\n"
        f"CPU {result['cpu_ms']} ms; {result['bytes_per_frame']} bytes a frame"
    )
    return result, text


SCENARIOS: Final[dict[str, Scenario]] = {"channels": _channels, "full": _full, "slow": measure_slow}
