"""A process that serves HTTP: its port, and how it says bye. What is served comes from the composition root."""

import asyncio
import errno
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from aiohttp import web

from .config import Settings
from .domain.errors import ConfigError
from .edge.connections import EdgeRunner
from .edge.proxies import Proxies
from .hub.hub import Hub
from .hub.limits import Limits
from .obs.metrics import Metrics
from .wire.codes import CloseCode

__all__ = ["DRAIN_S", "drain", "listening"]

# After SIGTERM: time for the last frames to leave. All of shutdown fits into five seconds.
DRAIN_S: Final = 2.0
# Clients that were said bye to come back spread over this time.
_BYE_SPREAD_MS: Final = 5000


@asynccontextmanager
async def listening(
    app: web.Application, settings: Settings, metrics: Metrics, on_ready: Callable[[str], None] | None
) -> AsyncIterator[str]:
    """Serve an application on the port of the settings; yield the address.

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
    site = web.TCPSite(runner, settings.host, settings.port, backlog=4096)
    try:
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(_explain_bind(error, settings)) from error
        address = runner.addresses[0]
        url = f"http://{address[0] if ':' not in address[0] else f'[{address[0]}]'}:{address[1]}"
        if on_ready is not None:
            on_ready(url)
        yield url
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await runner.cleanup()


async def drain(hub: Hub) -> None:
    """Say bye to every client and give the last bytes time to leave."""
    hub.say_bye(CloseCode.SHUTDOWN, lambda: random.randrange(_BYE_SPREAD_MS))
    deadline = asyncio.get_running_loop().time() + DRAIN_S
    while any(True for _ in hub.sessions) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)
    for session in list(hub.sessions):
        session.outlet.abort()


def _explain_bind(error: OSError, settings: Settings) -> str:
    where = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: choose another port with --port or RTSERVER_PORT"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}: not allowed to listen there; ports under 1024 need privileges, choose another with --port"
    return f"{where}: cannot listen there ({error.strerror}); check --host"
