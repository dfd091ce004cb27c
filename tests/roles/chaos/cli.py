"""`python -m tests.roles.chaos SEED --minutes N`: a line each round, at the end everything as JSON."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import orjson
import uvloop
from chain.soak.account import Account

from rtserver.demo.contracts import load_contracts
from rtserver.demo.toolchain import install_toolchain

from .stage import chaos

__all__ = ["main"]


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _run(arguments: argparse.Namespace) -> Account:
    toolchain = await install_toolchain()
    contracts = await load_contracts(toolchain)
    began = time.monotonic()

    def say(text: str) -> None:
        _tell(f"{(time.monotonic() - began) / 60:6.2f} min  {text}")

    return await chaos(
        toolchain, contracts, arguments.seed, seconds=arguments.minutes * 60, say=say, folder=arguments.folder,
        last_round=arguments.last,
    )  # fmt: skip


def main() -> int:
    """Run what the command line says; 1 where a difference was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.roles.chaos", description=__doc__)
    parser.add_argument("seed", type=int, help="who is killed when")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--last", type=int, help="the last round, if the time is not over before")
    parser.add_argument("--folder", type=Path, help="where stores and logs stay")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    account = uvloop.run(_run(arguments))
    _tell(orjson.dumps(account.as_json(), option=orjson.OPT_INDENT_2).decode())
    return 1 if account.differences else 0
