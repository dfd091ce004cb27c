"""Everything that `serve --gateways N` is made of, started, joined and ended."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp
import structlog
from aiohttp import web
from pydantic import SecretStr

from ..config import LOCAL_REDIS, Settings, plain
from ..domain.errors import ConfigError
from ..edge.problems import problem_middleware
from ..gateway import open_broker
from ..obs.metrics import Metrics
from ..serving import Addresses, OnReady, explain_bind, serve_site
from ..store.opening import default_path
from .child import Child
from .overview import Overview

__all__ = ["run_supervisor"]

log = structlog.get_logger(__name__)

_LOOPBACK: Final = "127.0.0.1"
_LAST_PORT: Final = 65535
# So long a process may take to say that it lives.
_ALIVE_S: Final = 5.0


async def run_supervisor(settings: Settings, stop: asyncio.Event, on_ready: OnReady | None = None) -> int:
    """Keep an engine (unless the role is that of gateways) and gateways running until `stop` is set.

    Args:
        settings: All settings; `gateways` says how many there are.
        stop: Set from outside, by a signal.
        on_ready: Called with the addresses once operators can ask; the processes are being started then.

    Returns:
        The exit status: 0 after an orderly end; otherwise one process did not start, or had to be killed at the end.

    Raises:
        ConfigError: A port is taken, or there is no Redis.
    """
    if settings.redis.url is None:
        settings = settings.model_copy(
            update={"redis": settings.redis.model_copy(update={"url": SecretStr(LOCAL_REDIS)})}
        )
    # Here once, rather than by each process.
    await (await open_broker(settings)).aclose()
    metrics = Metrics()
    with _held(settings.host, settings.port) as port:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            is_alive = _Alive(session)
            children = [
                Child(one.name or "", one.role, _command(one), json.dumps(plain(one)).encode(), is_alive, stop, metrics)
                for one in _processes(settings, port)
            ]
            overview = Overview(children, session, metrics)
            app = web.Application(middlewares=[problem_middleware(metrics, settings.origins)])
            app.add_routes(overview.routes())
            ops_host = settings.ops.host or settings.host
            ops_port = settings.ops.port
            if ops_port is None:
                ops_port = settings.port + 1 if 0 < settings.port < _LAST_PORT else 0
            async with serve_site(app, settings, metrics, ops_host, ops_port, "RTSERVER_OPS__PORT") as ops_url:
                url = f"http://{settings.host if ':' not in settings.host else f'[{settings.host}]'}:{port}"
                log.info("supervising", url=url, ops=ops_url, gateways=settings.gateways)
                if on_ready is not None:
                    on_ready(Addresses(url=url, ops_url=ops_url))
                async with asyncio.TaskGroup() as group:
                    draining = group.create_task(_drain(stop, overview), name="drain")
                    lives = [group.create_task(_live(child, stop), name=child.name) for child in children]
                    codes = await asyncio.gather(*lives)
                    draining.cancel()
    return next((code for code in codes if code), 0)


class _Alive:
    """Asks whether a process lives."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, ops_url: str) -> bool:
        try:
            async with asyncio.timeout(_ALIVE_S), self._session.get(f"{ops_url}/health/live") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


async def _live(child: Child, stop: asyncio.Event) -> int:
    """Keep one running; when it is over with one of them, it is with all."""
    code = await child.run()
    stop.set()
    return code


async def _drain(stop: asyncio.Event, overview: Overview) -> None:
    await stop.wait()
    overview.is_draining = True
    log.info("shutting down")


def _processes(settings: Settings, port: int) -> Iterator[Settings]:
    """Yield the settings of each process."""
    if settings.role == "all":
        # Its health is all that its own port has: that is for us.
        alone = {"role": "engine", "name": "engine", "host": _LOOPBACK, "port": 0, "gateways": 0, "reuse_port": False}
        yield settings.model_copy(update={**alone, "ops": settings.ops.model_copy(update={"host": None, "port": None})})
    store = settings.store
    if store.url is None and store.path is None:
        # A gateway reads the past where it is told to; beside an engine it knows where that keeps it.
        store = store.model_copy(update={"path": default_path(os.environ)})
    ops = settings.ops.model_copy(update={"host": _LOOPBACK, "port": 0})
    shared = {
        "role": "gateway", "port": port, "reuse_port": True, "gateways": 0, "chains": (), "ops": ops, "store": store,
    }  # fmt: skip
    for number in range(1, settings.gateways + 1):
        yield settings.model_copy(update={**shared, "name": f"gateway-{number}"})


def _command(settings: Settings) -> list[str]:
    # The name is for whoever looks at a list of processes; all that is secret goes through the pipe.
    return [sys.executable, "-m", "rtserver", "child", settings.name or ""]


@contextmanager
def _held(host: str, port: int) -> Iterator[int]:
    """Hold a port for those who will listen on it, without listening; yield its number.

    Raises:
        ConfigError: Someone listens there, or it can't be had. Also where it is another supervisor's gateways, which
            would share it, and the clients.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("gateways: this system does not let processes share a port; use one process")
    where = f"{host}:{port}"
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"{where}: cannot listen there ({error.strerror}); check the host") from error
    with socket.socket(family, kind, proto) as probe, socket.socket(family, kind, proto) as held:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            address = probe.getsockname()
            probe.close()
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(address)
        except OSError as error:
            raise ConfigError(explain_bind(error, where, "--port or RTSERVER_PORT")) from error
        yield int(address[1])
