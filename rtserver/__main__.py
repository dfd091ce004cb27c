"""The command line: serve, check, demo, tail, verify. Parses, reports errors in a sentence, and runs the loop."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import uvloop

from . import __version__
from .app import run_server
from .config import Settings, load_settings
from .domain.errors import RtserverError
from .obs.logs import configure_logs
from .serving import Addresses

__all__ = ["main"]

app = typer.Typer(
    name="rtserver",
    help="""The live, exact view of concentrated-liquidity positions.

    rtserver follows EVM chains, recomputes just the positions that a block touched, and pushes the changes to
    WebSocket clients. REST serves the first load. Every number equals what the chain itself answers at the
    block hash that comes with it.

    \b
    EXAMPLES
      rtserver demo
          a local chain with a market, and a page to watch it
      rtserver serve --rpc wss://… --rpc https://…
          a known chain (Ethereum, Base, Arbitrum, Optimism, Polygon, BNB Chain)
      rtserver serve --config rtserver.toml
          any chain; the README describes the file
      rtserver serve --role engine --config rtserver.toml
      rtserver serve --role gateway
          computing and delivering apart, joined by the Redis in RTSERVER_REDIS__URL
      rtserver serve --gateways 4 --config rtserver.toml
          the same on one machine and one port, over its Redis
      rtserver check --config rtserver.toml
          the settings as they are taken, and whether all that they name is there
      rtserver tail owner:1:0x…
          an owner's positions in the terminal, live
      rtserver verify --url http://127.0.0.1:8080 --rpc http://127.0.0.1:8545 --all
          compare everything served with the chain

    \b
    ENVIRONMENT
      RTSERVER_PORT, RTSERVER_LIMITS__CHANNELS, …
          every setting, nested with two underscores; it overrides the file,
          and the command line overrides it

    \b
    EXIT STATUS
      0  done
      1  verify found a difference
      2  a setting is wrong, or something can't be reached
    """,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"rtserver: {message}\n")
    raise typer.Exit(2)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on uvloop; a known error becomes one line and exit status 2."""
    try:
        return uvloop.run(work)
    except* RtserverError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        _fail(str(error))
    except* KeyboardInterrupt:
        raise typer.Exit(130) from None


def _until_signalled() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _serve(settings: Settings) -> int:
    stop = _until_signalled()
    if settings.gateways:
        from .supervisor.run import run_supervisor

        return await run_supervisor(settings, stop)
    await run_server(settings, stop)
    return 0


async def _serve_as_child(settings: Settings) -> None:
    stop = _until_signalled()
    loop = asyncio.get_running_loop()

    def look() -> None:
        # Nothing more is ever said there: it is the supervisor's end.
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    def say(addresses: Addresses) -> None:
        sys.stdout.write(json.dumps({"opsUrl": addresses.ops_url}) + "\n")
        sys.stdout.flush()

    loop.add_reader(sys.stdin.fileno(), look)
    await run_server(settings, stop, say)


Rpc = Annotated[
    list[str] | None,
    typer.Option(help="Endpoint of a known chain; repeat it: ws(s):// for heads, http(s):// or ws(s):// for reads."),
]
Config = Annotated[Path | None, typer.Option(help="TOML file with settings; see the README.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one. [default: 8080]")]
NoStore = Annotated[bool, typer.Option("--no-store", help="Keep nothing over restarts.")]
RoleName = Annotated[
    str | None,
    typer.Option(help="all; or engine (follows chains) and gateway (serves clients), joined by Redis. [default: all]"),
]
Gateways = Annotated[
    int | None,
    typer.Option(
        help="Deliver from this many processes on one port, beside an engine, joined by the Redis of this machine. "
        "[default: 0, one process does everything]"
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(help="Of an engine: its part of each chain's channels, such as 0/4; or any/4. [default: 0/1]"),
]


def _settings(config: Path | None, given: dict[str, Any], rpc: list[str] | None, no_store: bool) -> Settings:
    try:
        return load_settings(config, given, rpc or (), no_store=no_store)
    except RtserverError as error:
        _fail(str(error))


@app.command()
def serve(
    rpc: Rpc = None,
    config: Config = None,
    host: Host = None,
    port: Port = None,
    no_store: NoStore = False,
    role: RoleName = None,
    gateways: Gateways = None,
    shard: Shard = None,
) -> None:
    """Follow chains and serve their positions over WebSocket and REST."""
    given = {"host": host, "port": port, "role": role, "gateways": gateways, "shard": shard}
    settings = _settings(config, given, rpc, no_store)
    configure_logs(settings.log.level, settings.log.format, settings.name)
    if status := _run(_serve(settings)):
        raise typer.Exit(status)


@app.command()
def check(
    rpc: Rpc = None,
    config: Config = None,
    host: Host = None,
    port: Port = None,
    no_store: NoStore = False,
    role: RoleName = None,
    gateways: Gateways = None,
    shard: Shard = None,
) -> None:
    """Print what the settings come to, and whether endpoints, database and Redis are there. Starts nothing."""
    from .checkup import run_checkup

    given = {"host": host, "port": port, "role": role, "gateways": gateways, "shard": shard}
    settings = _settings(config, given, rpc, no_store)
    configure_logs("error", "auto")
    raise typer.Exit(_run(run_checkup(settings, sys.stdout)) or 0)


@app.command(hidden=True)
def child(name: Annotated[str, typer.Argument(help="What the supervisor calls it.")]) -> None:
    """Be one of the processes of `serve --gateways`, which starts it and says through a pipe what to do."""
    try:
        settings = Settings(**json.loads(sys.stdin.buffer.readline()))
    except ValueError:
        _fail(f"{name}: this is started by `rtserver serve --gateways`, and not by hand")
    configure_logs(settings.log.level, settings.log.format, settings.name)
    _run(_serve_as_child(settings))


@app.command()
def demo(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page and the interface.")] = 8080,
    chain_port: Annotated[int, typer.Option(help="Port of the local chain; a free one when taken.")] = 8545,
    block_time: Annotated[float, typer.Option(help="Seconds between blocks.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the market.")] = 1,
) -> None:
    """Start a local chain with the real contracts and a busy market, and serve it."""
    from .demo.command import run_demo

    raise typer.Exit(
        _run(run_demo(host=host, port=port, chain_port=chain_port, block_time_s=block_time, seed=seed)) or 0
    )


@app.command()
def tail(
    channel: Annotated[str, typer.Argument(help="Such as owner:1:0x…, position:1:uniswap-v3:42, head:1.")],
    url: Annotated[str, typer.Option(help="The server.")] = "ws://127.0.0.1:8080/ws",
) -> None:
    """Show a channel live in the terminal."""
    from .tools.tail import run_tail

    raise typer.Exit(_run(run_tail(url, channel)) or 0)


@app.command()
def verify(
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8080",
    rpc: Annotated[str, typer.Option(help="A node to ask for the truth; http(s)://.")] = "http://127.0.0.1:8545",
    owner: Annotated[list[str] | None, typer.Option(help="Owner to verify; repeat it.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Verify every position there is.")] = False,
    blocks: Annotated[int, typer.Option(help="How many blocks to watch.")] = 20,
    limit: Annotated[int, typer.Option(help="Most positions that --all takes on.")] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Compare every served value with the chain's own answer at the same block hash."""
    from .tools.verify import run_verify

    status = _run(
        run_verify(
            url=url, rpc=rpc, owners=owner or [], everything=everything, blocks=blocks, limit=limit, as_json=as_json
        )
    )
    raise typer.Exit(2 if status is None else status)


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"rtserver {__version__}\n")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
