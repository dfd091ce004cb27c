"""`python -m tests.roles.chaos SEED --minutes N`: a line each round, at the end everything as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

import orjson
from chain.soak.telling import run, tell

from .stage import chaos

__all__ = ["main"]


def main() -> int:
    """Run what the command line says; 1 where a difference was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.roles.chaos", description=__doc__)
    parser.add_argument("seed", type=int, help="who is killed when")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--last", type=int, help="the last round, if the time is not over before")
    parser.add_argument("--folder", type=Path, help="where stores and logs stay")
    arguments = parser.parse_args()
    account = run(
        arguments,
        lambda toolchain, contracts, say: chaos(
            toolchain, contracts, arguments.seed, seconds=arguments.minutes * 60, say=say, folder=arguments.folder,
            last_round=arguments.last,
        ),
    )  # fmt: skip
    tell(orjson.dumps(account.as_json(), option=orjson.OPT_INDENT_2).decode())
    return 1 if account.differences else 0
