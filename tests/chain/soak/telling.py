"""What the command lines of the soak and of the chaos share: what is set up first, and how lines are told."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import uvloop

from rtserver.demo.contracts import Contracts, load_contracts
from rtserver.demo.toolchain import Toolchain, install_toolchain

from .account import Account

__all__ = ["Play", "run", "tell"]

# Plays the rounds that a command line asks for, and tells lines meanwhile.
Play: TypeAlias = Callable[[Toolchain, Contracts, Callable[[str], None]], Awaitable[Account]]


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run(arguments: argparse.Namespace, play: Play) -> Account:
    """Set up what rounds need, and play them; each line is told with its minute."""
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)

    async def playing() -> Account:
        toolchain = await install_toolchain()
        contracts = await load_contracts(toolchain)
        began = time.monotonic()
        return await play(
            toolchain, contracts, lambda text: tell(f"{(time.monotonic() - began) / 60:6.2f} min  {text}")
        )

    return uvloop.run(playing())
