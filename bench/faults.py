"""What breaks, what a client sees of it, and how long until it is right again: the README's table, measured.

The rows are those that `tests/faults_table` proves, on a stage of their own each: a real node with the real
contracts, fault proxies before it, the server as a process, one client with eight channels. Blocks are mined when a
row says so. "Right" is when the client had the state that the chain itself answers, by what `rtserver verify`
compares. The time counts from the end of the fault, or from the order to mine the newest block if that is later; where
a fault lasts, it is that of the slowest block.

    python -m bench.faults [--turns 3] [--rows reorg_5,busy] [--json] [--outage-s 10]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from bench.common import machine, machine_line
from rtserver.demo.contracts import Contracts, load_contracts
from rtserver.demo.deployment import Deployment
from rtserver.demo.lab import Lab, open_lab
from rtserver.demo.node import AnvilNode
from rtserver.demo.toolchain import Toolchain, install_toolchain

if TYPE_CHECKING:
    from faults_table.row import Row
    from faults_table.stage import Outcome

__all__ = ["main"]

_ACCOUNTS: Final = 24
_TESTS: Final = Path(__file__).parents[1] / "tests"


@dataclass(slots=True)
class Measured:
    """A row and its turns."""

    row: "Row"
    outcomes: "list[Outcome]" = field(default_factory=list)

    def line(self) -> str:
        """Return the row of the table: median and slowest in ms, RPC calls and the blocks that they were for."""
        ms = [1000 * outcome.right_s for outcome in self.outcomes]
        median = min(self.outcomes, key=lambda outcome: abs(1000 * outcome.right_s - statistics.median(ms)))
        calls = f"{median.calls} for {median.blocks}" if median.blocks else str(median.calls)
        times = f"{_ms(statistics.median(ms))} / {_ms(max(ms))}"
        return f"| {self.row.fault} | {self.row.sees} | {times} | {calls} |"

    def as_json(self) -> dict[str, Any]:
        """Return all turns."""
        return {"key": self.row.key, "fault": self.row.fault, "sees": self.row.sees,
                "turns": [asdict(outcome) for outcome in self.outcomes]}  # fmt: skip


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value < 1000 else f"{round(value, -1):,.0f}"


def _tell(text: str) -> None:
    print(f"\r{text:70}", end="", file=sys.stderr)


async def _measure(
    row: "Row",
    turns: int,
    outage_ms: int,
    toolchain: Toolchain,
    contracts: Contracts,
    state: Path,
    deployed: Deployment,
) -> Measured:
    from faults_table.stage import open_stage

    measured = Measured(row)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtserver-bench-")))
        node = await stack.enter_async_context(AnvilNode(toolchain, accounts=_ACCOUNTS, load_state=state))
        # The deployment's blocks are a second apart but took less: its last one may lie ahead of this node's clock.
        ahead_s = max(incentive.start_time for incentive in deployed.incentives) - int(time.time())
        if ahead_s >= 0:
            await node.rpc("evm_increaseTime", [hex(ahead_s + 1)])
        lab = Lab(node, contracts, deployed)
        await lab.catch_up()
        opened = open_stage(lab, toolchain, folder, row.setup, outage_ms=outage_ms, prepare=row.prepare)
        stage = await stack.enter_async_context(opened)
        for turn in range(turns):
            _tell(f"{row.key}, turn {turn + 1} of {turns}")
            outcome = await row.run(stage)
            row.check(outcome)
            measured.outcomes.append(outcome)
            # The next turn begins on a quiet stage.
            await stage.blocks()
            await stage.right()
    return measured


async def _bench(options: argparse.Namespace) -> None:
    from faults_table.table import ROWS

    wanted = set(options.rows.split(",")) if options.rows else {row.key for row in ROWS}
    if unknown := wanted - {row.key for row in ROWS}:
        sys.exit(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(row.key for row in ROWS)}")
    began = time.monotonic()
    toolchain = await install_toolchain(progress=_tell)
    contracts = await load_contracts(toolchain)
    measured: list[Measured] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rtserver-bench-") as folder:
        state = Path(folder) / "deployed.json"
        async with open_lab(toolchain, contracts, accounts=_ACCOUNTS) as lab:
            await lab.node.dump(state, with_history=False)
            deployed = lab.deployment
        for row in ROWS:
            if row.key in wanted:
                outage_ms = int(1000 * options.outage_s)
                measuring = _measure(row, options.turns, outage_ms, toolchain, contracts, state, deployed)
                try:
                    measured.append(await measuring)
                except* AssertionError as errors:
                    # The others are worth their minutes all the same.
                    failed.append(row.key)
                    print(f"\n{row.key}: {_innermost(errors)}", file=sys.stderr)
    _tell("")
    if options.json:
        print(json.dumps({"machine": machine(), "rows": [one.as_json() for one in measured]}, indent=1))
    else:
        _print(measured, options.turns, time.monotonic() - began)
    if failed:
        sys.exit(f"not as the table says: {', '.join(failed)}")


def _print(measured: list[Measured], turns: int, seconds: float) -> None:
    print("\n| fault | what the client sees | right again after, ms: median / slowest | RPC calls for blocks |")
    print("|---|---|---|---|")
    for one in measured:
        print(one.line())
    print(f"\n{turns} turns in {seconds:.0f} s; {machine_line()}")


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", default="", help="keys with commas; all if left out")
    parser.add_argument("--outage-s", type=float, default=10.0, help="how long the outages are that a client waits out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # What is measured is what the tests prove, so it is theirs.
    sys.path.insert(0, str(_TESTS))
    uvloop.run(_bench(options))


if __name__ == "__main__":
    main()
