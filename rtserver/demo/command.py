"""`rtserver demo`: what is started, in which order, what is printed, and how all of it ends.

Everything it starts is a child of one exit stack, so a Ctrl-C, a failure or a closed terminal unwinds the
same way: market, server, node, files. Decides nothing about positions or protocols.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eth_utils.address import to_checksum_address
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from .contracts import load_contracts
from .deploy import deploy
from .gate import Gate
from .lab import Lab
from .market import Market, MarketConfig
from .node import CHAIN_ID, AnvilNode, NodeFailed, PortInUse
from .ports import free_port, is_port_free
from .process import Child
from .server import ServerFailed, await_ready, start_server, url_of
from .settings_file import settings_toml
from .showcase import Exhibit, mint_exhibits
from .toolchain import ToolchainError, install_toolchain

__all__ = ["DEFAULT_CHAIN_PORT", "DEFAULT_PORT", "run_demo"]

DEFAULT_PORT: Final = 8080
DEFAULT_CHAIN_PORT: Final = 8545
# Of the five seconds in which everything has to be gone; the node needs far less than the rest.
_SERVER_STOP_S: Final = 3.5
# The house, the trader and the stranger come before the owners.
_OTHER_ACCOUNTS: Final = 3
# Enough activity before the first visitor for fees, closed positions and moved prices to be there.
_WARM_UP_BLOCKS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    host: str
    port: int
    chain_port: int | None
    block_time_s: float
    seed: int
    owners: int
    max_nfts: int
    market: bool
    serve: bool
    began: float


async def run_demo(
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    chain_port: int | None = None,
    block_time_s: float = 1.0,
    seed: int = 1,
    owners: int = 6,
    max_nfts: int = 150,
    no_market: bool = False,
    no_serve: bool = False,
    console: Console | None = None,
) -> int:
    """Run the demo until a signal comes or something essential ends, and return the exit code.

    Args:
        port: The server's. In use: says so and returns 2.
        chain_port: The node's. None and 8545 quietly become another port if 8545 is in use; any other number
            that is in use returns 2.
        block_time_s: Seconds between blocks.
        seed: Equal seeds give equal deployments and equal markets.
        owners: How many people hold positions.
        max_nfts: Bound on positions, besides the base liquidity of each pool.
        no_market: Mint the positions, then leave the chain alone: empty blocks.
        no_serve: Only the chain and the market; print the settings to serve it with.

    Returns:
        0 after SIGINT or SIGTERM, 1 after a failure, 2 for a port in use.
    """
    console = console or Console()
    plan = _Plan(
        host=host,
        port=port,
        chain_port=chain_port,
        block_time_s=block_time_s,
        seed=seed,
        owners=owners,
        max_nfts=max_nfts,
        market=not no_market,
        serve=not no_serve,
        began=time.monotonic(),
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(_demo(plan, console))
            waiter = group.create_task(stop.wait())
            await asyncio.wait((work, waiter), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                console.print("\nstopping …", style="dim")
                work.cancel()
            waiter.cancel()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
    return 0 if work.cancelled() else work.result()


async def _demo(plan: _Plan, console: Console) -> int:
    if plan.serve and not is_port_free(plan.port, plan.host or "0.0.0.0"):
        _say_port_in_use(console, "server", plan.port, "PORT", "--port")
        return 2
    try:
        async with AsyncExitStack() as stack:
            return await _start_and_watch(plan, console, stack)
    except PortInUse as error:
        _say_port_in_use(console, "chain", error.port, "CHAIN_PORT", "--chain-port")
        return 2
    except (ToolchainError, NodeFailed, ServerFailed) as error:
        console.print(f"[red]demo:[/red] {escape(str(error))}")
        return 1


async def _start_and_watch(plan: _Plan, console: Console, stack: AsyncExitStack) -> int:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtserver-demo-")))
    with _step(console, "tools: anvil and the Uniswap contracts") as status:
        toolchain = await install_toolchain(progress=status.update)
        contracts = await load_contracts(toolchain)
    chain_port = _chain_port(plan)
    with _step(console, f"chain: a node of its own, id {CHAIN_ID}"):
        # On a port of its own: the one that was asked for is the gate's.
        node = await stack.enter_async_context(AnvilNode(toolchain, accounts=plan.owners + _OTHER_ACCOUNTS))
    with _step(console, "contracts: factory, position manager, router, tokens, pools"):
        deployment = await deploy(node, contracts, owners=plan.owners)
        lab = Lab(node, contracts, deployment)
        await lab.catch_up()
    with _step(console, "positions: in range, out of range, full range, shared, closed, staked"):
        exhibits = await mint_exhibits(lab, seed=plan.seed)
        kept = frozenset(token_id for exhibit in exhibits for token_id in exhibit.token_ids)
        market = Market(lab, seed=plan.seed, config=MarketConfig(max_nfts=plan.max_nfts, kept=kept))
        if plan.market:
            for _ in range(_WARM_UP_BLOCKS):
                await market.step()
        gate = await stack.enter_async_context(Gate(node, port=chain_port, block_time_s=plan.block_time_s))
    settings = folder / "rtserver.toml"
    await asyncio.to_thread(
        settings.write_text,
        settings_toml(
            deployment,
            ws_url=gate.ws_url,
            http_url=gate.http_url,
            owners=[exhibit.owner for exhibit in exhibits],
            block_time_s=plan.block_time_s,
            store=folder / "store.sqlite3",
        ),
    )

    server: Child | None = None
    if plan.serve:
        with _step(console, "server: loading every position"):
            server = start_server(settings, host=plan.host, port=plan.port, log=folder / "server.log")
            stack.push_async_callback(server.end, timeout_s=_SERVER_STOP_S)
            await await_ready(server, url_of(plan.host, plan.port))
    _print_invitation(console, plan, lab, gate, exhibits, settings)
    return await _watch(console, plan, node, server, market if plan.market else None)


def _chain_port(plan: _Plan) -> int:
    """Return the chain's port.

    Raises:
        PortInUse: The one that was asked for is taken.
    """
    port = plan.chain_port
    if port is None or port == DEFAULT_CHAIN_PORT:
        # The usual port is a habit, not a wish: whoever runs a node there is not stopped by it.
        return DEFAULT_CHAIN_PORT if is_port_free(DEFAULT_CHAIN_PORT) else free_port()
    if not is_port_free(port):
        raise PortInUse(port)
    return port


async def _watch(console: Console, plan: _Plan, node: AnvilNode, server: Child | None, market: Market | None) -> int:
    """Run the market until something essential ends, which is a failure; a signal cancels us instead."""
    try:
        return await _until_something_ends(console, plan, node, server, market)
    finally:
        if market is not None:
            stats = market.stats
            failed = f", {stats.failed.total()} failed" if stats.failed else ""
            console.print(f"  market: {stats.blocks} blocks, {stats.sent} transactions{failed}", highlight=False)


async def _until_something_ends(
    console: Console, plan: _Plan, node: AnvilNode, server: Child | None, market: Market | None
) -> int:
    async with asyncio.TaskGroup() as group:
        essential = {"the node": group.create_task(node.wait())}
        if server is not None:
            essential["the server"] = group.create_task(server.wait(poll_s=0.1))
        trading = group.create_task(market.run(plan.block_time_s)) if market is not None else None
        await asyncio.wait(essential.values(), return_when=asyncio.FIRST_COMPLETED)
        for name, task in essential.items():
            if task.done():
                said = node.said() if name == "the node" else server.said() if server else ""
                console.print(f"[red]demo:[/red] {name} ended with code {task.result()}:\n{escape(said)}")
            task.cancel()
        if trading is not None:
            trading.cancel()
    return 1


@contextmanager
def _step(console: Console, what: str) -> Iterator[Status]:
    """Show what is going on, and afterwards how long it took."""
    began = time.monotonic()
    if not console.is_terminal:
        # A pipe or a log sees no spinner: say it before, not only after.
        console.print(f"  … {escape(what)}", highlight=False)
    with console.status(escape(what)) as status:
        yield status
    console.print(f"  [green]✓[/green] {escape(what)} [dim]{time.monotonic() - began:.1f} s[/dim]", highlight=False)


def _say_port_in_use(console: Console, who: str, port: int, variable: str, option: str) -> None:
    other = port + 10
    console.print(
        f"[red]demo:[/red] port {port} for the {who} is in use. Choose another:\n"
        f"  make demo {variable}={other}\n"
        f"  rtserver demo {option} {other}",
        highlight=False,
    )


def _print_invitation(
    console: Console, plan: _Plan, lab: Lab, gate: Gate, exhibits: Sequence[Exhibit], settings: Path
) -> None:
    """Print what to open, whom to look at, and lines to paste: each on one line, however narrow the window."""

    def say(text: str = "") -> None:
        console.print(text, highlight=False, soft_wrap=True)

    base = url_of(plan.host, plan.port)
    first = to_checksum_address(exhibits[0].owner)
    say()
    if plan.serve:
        say(f"  Serving after {time.monotonic() - plan.began:.1f} s. Ctrl-C ends everything.")
        say(f"  Dashboard  [bold]{base}/?owner={first}[/bold]")
    else:
        say(f"  The chain is up after {time.monotonic() - plan.began:.1f} s. Ctrl-C ends it.")
        say(f"  Serve it   {_program()} serve --config {settings}")
    say(f"  Chain      {gate.ws_url} and {gate.http_url}, a block every {plan.block_time_s:g} s")
    say("  Owners")
    for exhibit in exhibits:
        count = len(lab.book.owned_by(exhibit.owner))
        count += sum(1 for user in lab.book.depositors.values() if user == exhibit.owner)
        say(f"    {to_checksum_address(exhibit.owner)}  {exhibit.word:<12} {count:>3} positions")
    if plan.serve:
        channel = f"owner:{CHAIN_ID}:{first}"
        elsewhere = "" if plan.port == DEFAULT_PORT else f" --url {base.replace('http', 'ws', 1)}/ws"
        say(f"  REST       curl '{base}/api/v1/positions/summary?owner={first}'")
        say(f"  Socket     {_program()} tail{elsewhere} {channel}")
    say()


def _program() -> str:
    """Return how to call `rtserver` from here: the script beside the interpreter that we run on."""
    script = Path(sys.executable).with_name("rtserver")
    return shlex.quote(os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script))
