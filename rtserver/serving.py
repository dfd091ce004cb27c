"""A process that serves HTTP: its ports, and how it says bye. What is served comes from the composition root."""

import asyncio
import errno
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web

from .config import Settings
from .domain.errors import ConfigError
from .edge.connections import EdgeRunner
from .edge.health import Health
from .edge.problems import problem_middleware
from .edge.proxies import Proxies
from .hub.hub import Hub
from .hub.limits import Limits
from .obs.metrics import Metrics
from .open_files import raise_open_files
from .wire.codes import CloseCode

__all__ = ["DRAIN_S", "Addresses", "OnReady", "bye_spread_ms", "drain", "explain_bind", "listening", "serve_site"]

log = structlog.get_logger(__name__)

# After SIGTERM: time for the last frames to leave. All of shutdown fits into five seconds.
DRAIN_S: Final = 2.0
# Fewer than that are gone before a core is.
_FEW_FILES: Final = 4096
# Clients that were said bye to come back spread over a millisecond for each of them: half as fast as one core takes
# them in with five channels each (a join is 0.5 ms). Not all at once even if few, and nobody has old values for long.
_BYE_LEAST_MS: Final = 500
_BYE_MOST_MS: Final = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a process listens: for clients, and for operators (the same unless there is a port for them)."""

    url: str
    ops_url: str


OnReady = Callable[[Addresses], None]


@asynccontextmanager
async def listening(
    app: web.Application, settings: Settings, metrics: Metrics, health: Health, on_ready: OnReady | None
) -> AsyncIterator[str]:
    """Serve an application on the port of the settings, and health on that for operators; yield the address.

    Raises:
        ConfigError: A port can't be had.
    """
    open_files = raise_open_files()
    if open_files < _FEW_FILES:
        log.warning("few open files are allowed, and each socket is one", limit=open_files, raise_with="ulimit -n")
    async with AsyncExitStack() as stack:
        ops_url = None
        if settings.ops.port is not None:
            ops = web.Application(middlewares=[problem_middleware(metrics, settings.origins)])
            ops.add_routes(health.routes())
            host = settings.ops.host or settings.host
            ops_url = await stack.enter_async_context(
                serve_site(ops, settings, metrics, host, settings.ops.port, "RTSERVER_OPS__PORT")
            )
        url = await stack.enter_async_context(
            serve_site(
                app, settings, metrics, settings.host, settings.port, "--port or RTSERVER_PORT",
                reuse_port=settings.reuse_port,
            )
        )  # fmt: skip
        if on_ready is not None:
            on_ready(Addresses(url=url, ops_url=ops_url or url))
        yield url


@asynccontextmanager
async def serve_site(
    app: web.Application,
    settings: Settings,
    metrics: Metrics,
    host: str,
    port: int,
    setting: str,
    *,
    reuse_port: bool = False,
) -> AsyncIterator[str]:
    """Serve an application on one port; yield the address.

    Args:
        app: The application.
        settings: Whose limits and proxies hold.
        metrics: Where requests are counted.
        host: The address to listen on.
        port: The port; 0 picks a free one.
        setting: What chooses another port, for the error.
        reuse_port: Other processes of this user may listen there, too.

    Raises:
        ConfigError: The port can't be had.
    """
    runner = EdgeRunner(
        app,
        limits=Limits(**settings.limits.model_dump()),
        metrics=metrics,
        proxies=Proxies(settings.trusted_proxies),
        shutdown_timeout=1.0,
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=4096, reuse_port=reuse_port or None)
    try:
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(explain_bind(error, f"{host}:{port}", setting)) from error
        address = runner.addresses[0]
        yield f"http://{address[0] if ':' not in address[0] else f'[{address[0]}]'}:{address[1]}"
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await runner.cleanup()


async def drain(hub: Hub) -> None:
    """Say bye to every client and give the last bytes time to leave."""
    spread_ms = bye_spread_ms(sum(1 for _ in hub.sessions))
    hub.say_bye(CloseCode.SHUTDOWN, lambda: random.randrange(spread_ms))
    deadline = asyncio.get_running_loop().time() + DRAIN_S
    while any(True for _ in hub.sessions) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)
    for session in list(hub.sessions):
        session.outlet.abort()


def bye_spread_ms(clients: int) -> int:
    """Return over how many milliseconds so many clients are to come back."""
    return min(max(clients, _BYE_LEAST_MS), _BYE_MOST_MS)


def explain_bind(error: OSError, where: str, setting: str) -> str:
    """Return why a port can't be had, and what to do about it."""
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: choose another port with {setting}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}: not allowed to listen there; ports under 1024 need privileges, choose another with {setting}"
    return f"{where}: cannot listen there ({error.strerror}); check the host"
