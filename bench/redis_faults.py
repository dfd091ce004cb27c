"""What breaks between engines, Redis and gateways, what clients see, and how long until they are right: the README's.

The rows are those that `tests/redis_faults` proves, on two stages: a real node with the real contracts, a real Redis
behind a TCP line that leads to whoever is master, an engine and its standby, two gateways, a client with eight channels
at each; and the same on a real Cluster of three masters and a replica, in its last row with engines that share the
chain. Blocks are mined when a row says so. "Right" is when both clients had the state that the chain itself answers,
by what `rtserver verify` compares; the time counts from the end of the fault, and from its beginning where it stays.

    python -m bench.redis_faults [--turns 3] [--rows redis_full,two_leaders] [--json] [--outage-s 10] [--clients 2000]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from bench.common import machine, machine_line
from bench.fanout_process import raise_file_limit
from rtserver.demo.contracts import load_contracts
from rtserver.demo.lab import open_lab
from rtserver.demo.toolchain import install_toolchain

if TYPE_CHECKING:
    from redis_faults.row import Row
    from redis_faults.stage import Outcome, Stage

__all__ = ["main"]

_ACCOUNTS: Final = 24
_TESTS: Final = Path(__file__).parents[1] / "tests"


@dataclass(slots=True)
class Measured:
    """A row and its turns."""

    row: "Row[Any]"
    outcomes: "list[Outcome]" = field(default_factory=list)

    def line(self) -> str:
        """Return the row of the table: median and slowest in seconds."""
        seconds = [outcome.right_s for outcome in self.outcomes]
        return f"| {self.row.fault} | {self.row.sees} | {statistics.median(seconds):.2f} / {max(seconds):.2f} |"

    def more(self) -> list[str]:
        """Return what else a row counted, a line a turn."""
        return [
            f"{self.row.key}: " + ", ".join(f"{value:g} {name}" for name, value in outcome.counts.items())
            for outcome in self.outcomes
            if outcome.counts
        ]

    def as_json(self) -> dict[str, Any]:
        """Return all turns."""
        return {"key": self.row.key, "fault": self.row.fault, "sees": self.row.sees,
                "turns": [asdict(outcome) for outcome in self.outcomes]}  # fmt: skip


def _tell(text: str) -> None:
    print(f"\r{text:70}", end="", file=sys.stderr)


def _report(measured: list[Measured], options: argparse.Namespace, began: float) -> None:
    _tell("")
    if options.json:
        print(json.dumps({"machine": machine(), "rows": [one.as_json() for one in measured]}, indent=1))
        return
    print("\n| fault | what the client sees | right again after, s: median / slowest |")
    print("|---|---|---|")
    for one in measured:
        if one.outcomes:
            print(one.line())
    print()
    for line in (line for one in measured for line in one.more()):
        print(line)
    print(f"{options.turns} turns in {time.monotonic() - began:.0f} s; {machine_line()}")


async def _measure(one: Measured, stage: "Stage", turns: int, failed: list[str]) -> None:
    """Play a row some times. What was told otherwise than the table says goes into `failed`."""
    row = one.row
    for turn in range(turns):
        _tell(f"{row.key}, turn {turn + 1} of {turns}")
        await stage.rest()
        outcome = await row.run(stage)
        one.outcomes.append(outcome)
        _tell(f"{row.key}: right after {outcome.right_s:.2f} s")
        print(file=sys.stderr)
        try:
            row.check(outcome)
        except AssertionError as error:
            # Right in the end: the others are worth their minutes.
            failed.append(row.key)
            print(f"\n{row.key}: {error}", file=sys.stderr)


async def _bench(options: argparse.Namespace) -> int:
    from redis_faults.table import PLAYS

    keys = [play.row.key for play in PLAYS]
    wanted = set(options.rows.split(",")) if options.rows else set(keys)
    if unknown := wanted - set(keys):
        sys.exit(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(keys)}")
    raise_file_limit()
    began = time.monotonic()
    toolchain = await install_toolchain(progress=_tell)
    contracts = await load_contracts(toolchain)
    measured: list[Measured] = []
    failed: list[str] = []
    with ExitStack() as stack:
        # Whatever ends it: what was measured until then is worth its minutes.
        stack.callback(_report, measured, options, began)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtserver-bench-")))
        # Rows of one stage stand together.
        for opens, plays in groupby((play for play in PLAYS if play.row.key in wanted), key=lambda play: play.opens):
            async with open_lab(toolchain, contracts, accounts=_ACCOUNTS) as lab:
                opened = opens(lab, folder, outage_ms=int(1000 * options.outage_s), crowd=options.clients)
                async with opened as stage:
                    for play in plays:
                        measured.append(one := Measured(play.row))
                        await _measure(one, stage, options.turns, failed)
    if failed:
        print(f"not as the table says: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", default="", help="keys with commas; all if left out")
    parser.add_argument("--outage-s", type=float, default=10.0, help="how long the outages are that clients wait out")
    parser.add_argument("--clients", type=int, default=2000, help="how many clients a gateway is killed with")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # What is measured is what the tests prove, so it is theirs.
    sys.path.insert(0, str(_TESTS))
    return uvloop.run(_bench(options))


if __name__ == "__main__":
    sys.exit(main())
