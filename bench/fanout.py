"""What a delivered message costs: rtserver against the bare system call, and against others who deliver.

Each server runs in a process of its own on one core, the clients on another. In every round each has its turn
while the others are stopped: paced broadcasts for CPU per message and latency, then bursts for throughput.
The floor is a bare `transport.write` of as many bytes; every ratio is to the floor of the same round.
`--scenario` looks at one thing: many channels in one frame, a slow client, a block that moves everything.

    python -m bench.fanout [--clients 1000,5000,10000] [--bytes 300,2000] [--peers] [--json]
    python -m bench.fanout --scenario channels|slow|full [--json]
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.common import machine_line
from bench.fanout_contenders import FLOOR, OURS, PEERS, Contender, install
from bench.fanout_load import build_loader
from bench.fanout_process import raise_file_limit
from bench.fanout_scenarios import SCENARIOS
from bench.fanout_turns import INTERVAL_S_A_CLIENT, Figures, measure_all

__all__ = ["main"]

# Between two broadcasts there is time to deliver the first: latency is not queueing. Less than the 0.2 s after
# which a receiver counts as idle, so that all sizes are measured in the same state of their sockets.
_SHORTEST_INTERVAL_S: Final = 0.1
_ROUNDS: Final = 3


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


async def _measure(options: argparse.Namespace, tell: Callable[[str], None], folder: Path) -> list[Figures]:
    contenders: list[Contender] = [FLOOR, OURS]
    if options.peers is not None:
        chosen = [peer for peer in PEERS if not options.peers or peer.name.split()[0] in options.peers.split(",")]
        await install(chosen, tell)
        contenders += chosen
    loader = await build_loader()
    found: list[Figures] = []
    for clients in options.clients:
        found += await measure_all(
            contenders,
            loader,
            clients=clients,
            sizes=options.bytes,
            rounds=options.rounds or _ROUNDS,
            broadcasts=options.broadcasts,
            interval_s=max(_SHORTEST_INTERVAL_S, clients * INTERVAL_S_A_CLIENT),
            folder=folder,
            tell=tell,
        )
    return found


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"fan-out on {machine_line()}",
        "",
        "                              µs CPU     × the     latency ms    last socket ms   messages      KiB a",
        "clients bytes server          a message  floor     p50     p99     p50     p99    a second   connection",
    ]
    before = None
    for row in rows:
        if before not in (None, (row["clients"], row["bytes"])):
            lines.append("")
        before = row["clients"], row["bytes"]
        lines.append(
            f"{row['clients']:7} {row['bytes']:5} {row['name']:<20}{row['cpu_us_per_message']:6.2f}"
            f" {row['ratio_to_floor']:6.2f} {row['p50_ms']:7.1f} {row['p99_ms']:7.1f} {row['last_p50_ms']:7.1f}"
            f" {row['last_p99_ms']:7.1f} {row['messages_per_s']:11,} {row['kib_per_connection']:12.1f}"
        )
    busiest = max(row["load_generator_busy"] for row in rows)
    return "\n".join([*lines, "", f"the load generator, on its own core, was busy {busiest:.0%} of the time at most"])


async def _run(options: argparse.Namespace) -> int:
    def tell(text: str) -> None:
        if not options.json:
            print(f"… {text}", file=sys.stderr, flush=True)

    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="rtserver-fanout-") as name:
        folder = Path(name)
        if options.scenario:
            result, text = await SCENARIOS[options.scenario](options, await build_loader(), folder, tell)
            print(json.dumps(result, indent=1) if options.json else f"{text}\n\non {machine_line()}")
            return 0
        rows = [figures.row() for figures in await _measure(options, tell, folder)]
    print(json.dumps(rows, indent=1) if options.json else _table(rows))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="bench.fanout", description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=_numbers, default=None, help="default 1000,5000,10000")
    parser.add_argument("--bytes", type=_numbers, default=[300, 2000], help="length of a message")
    parser.add_argument("--rounds", type=int, default=None, help="default 3; pairs of turns in `slow`, default 8")
    parser.add_argument("--broadcasts", type=int, default=20, help="measured broadcasts a round and server")
    parser.add_argument(
        "--peers",
        nargs="?",
        const="",
        default=None,
        help="install and run others, too: all of them, or those whose first word is named (picows,ws,nchan)",
    )
    parser.add_argument("--scenario", choices=sorted(SCENARIOS))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.clients is None and not options.scenario:
        options.clients = [1000, 5000, 10_000]
    return uvloop.run(_run(options))


if __name__ == "__main__":
    sys.exit(main())
