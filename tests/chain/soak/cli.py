"""`python -m tests.chain.soak SEED --minutes N`: a progress line each minute, at the end everything as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

import orjson

from .memory import spark, svg_of
from .stage import soak
from .telling import run, tell

__all__ = ["main"]


def main() -> int:
    """Run what the command line says; 1 where a difference was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chain.soak", description=__doc__)
    parser.add_argument("seed", type=int, help="what goes wrong and when")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--first", type=int, default=1, help="the first round")
    parser.add_argument("--last", type=int, help="the last round, if the time is not over before")
    parser.add_argument("--folder", type=Path, help="where stores and logs stay")
    parser.add_argument("--picture", type=Path, help="the curve of memory as an SVG file")
    arguments = parser.parse_args()
    account = run(
        arguments,
        lambda toolchain, contracts, say: soak(
            toolchain, contracts, arguments.seed, seconds=arguments.minutes * 60, say=say, folder=arguments.folder,
            first_round=arguments.first, last_round=arguments.last,
        ),
    )  # fmt: skip
    if arguments.picture is not None:
        title = f"Resident memory of rtserver through {account.rounds} rounds of faults, seed {account.seed}"
        arguments.picture.write_text(svg_of(account.memory, title))
    tell(orjson.dumps(account.as_json(), option=orjson.OPT_INDENT_2).decode())
    tell(spark([kib for _, kib in account.memory.points]))
    last = arguments.first + account.rounds - 1
    which = f"--first {arguments.first} --last {last} --minutes {arguments.minutes}"
    tell(f"replay: python -m tests.chain.soak {account.seed} {which}")
    return 1 if account.differences else 0
