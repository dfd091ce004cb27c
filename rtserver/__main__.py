"""The command line: serve, demo, tail, verify. Parses, reports errors in a sentence, and runs the loop."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from . import __version__
from .app import run_server
from .config import Settings, load_settings
from .domain.errors import RtserverError
from .obs.logs import configure_logs

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


def _fail(message: str) -> None:
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
    return None


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await run_server(settings, stop)


@app.command()
def serve(
    rpc: Annotated[
        list[str] | None,
        typer.Option(
            help="Endpoint of a known chain; repeat it: ws(s):// for heads, http(s):// or ws(s):// for reads."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; see the README.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one. [default: 8080]")] = None,
    no_store: Annotated[bool, typer.Option("--no-store", help="Keep nothing over restarts.")] = False,
    role: Annotated[
        str | None,
        typer.Option(
            help="all; or engine (follows chains) and gateway (serves clients), joined by Redis. [default: all]"
        ),
    ] = None,
) -> None:
    """Follow chains and serve their positions over WebSocket and REST."""
    try:
        settings = load_settings(config, {"host": host, "port": port, "role": role}, rpc or (), no_store=no_store)
    except RtserverError as error:
        _fail(str(error))
        return
    configure_logs(settings.log.level, settings.log.format)
    _run(_serve(settings))


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
