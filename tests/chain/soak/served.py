"""One `rtserver serve` of the soak, with a store and clients of its own."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import orjson

from rtserver.demo.deployment import Deployment
from rtserver.demo.ports import free_port
from rtserver.demo.process import Child
from rtserver.demo.server import await_ready, start_server, url_of
from rtserver.demo.settings_file import settings_toml

from .clients import LatestClient, WishClient

__all__ = ["Endpoint", "SoakServer"]

_BLOCK_TIME_S: Final = 0.5
_RPC_TIMEOUT_S: Final = 2.0
_STORE_EVERY_S: Final = 0.3
# What an orderly end may take, and a store that somebody else holds on to.
_END_S: Final = 8.0
_START_S: Final = 20.0
# Two at a time, on a machine that may have more to do.
_READY_S: Final = 90.0
_POLL_S: Final = 0.05
_LOCK_TRIES: Final = 50
# What the server says of itself that nobody should have to read.
_BAD_LEVELS: Final = ("error", "critical")
_SOME: Final = 40


class Endpoint(Protocol):
    """Where a node is asked: a fault proxy, or the gate before it."""

    @property
    def ws_url(self) -> str:
        """Return where heads are pushed."""

    @property
    def http_url(self) -> str:
        """Return where reads are answered."""


class SoakServer:
    """A server between its lives; `clients` are connected to it as long as `running`."""

    def __init__(self, name: str, deployment: Deployment, proxies: Sequence[Endpoint], folder: Path) -> None:
        self.name = name
        self.port = free_port()
        self.url = url_of("127.0.0.1", self.port)
        self.clients: list[WishClient | LatestClient] = []
        self.problems: list[str] = []
        self.lives = 0
        self._store = folder / f"{name}.sqlite3"
        self._settings = folder / f"{name}.toml"
        self._log = folder / f"{name}.log"
        self._read_to = 0
        self._child: Child | None = None
        self._http: aiohttp.ClientSession | None = None
        self._settings.write_text(self._text(deployment, proxies))

    def _text(self, deployment: Deployment, proxies: Sequence[Endpoint]) -> str:
        first = proxies[0]
        text = settings_toml(
            deployment, ws_url=first.ws_url, http_url=first.http_url, block_time_s=_BLOCK_TIME_S, store=self._store
        )
        both = f'rpc = ["{first.ws_url}", "{first.http_url}"]'
        every = [url for proxy in proxies for url in (proxy.ws_url, proxy.http_url)]
        assert both in text
        text = text.replace(both, f"rpc = {orjson.dumps(every).decode()}\nrpc_timeout_s = {_RPC_TIMEOUT_S}")
        text = text.replace("[store]", f"[store]\nevery_s = {_STORE_EVERY_S}")
        # All clients come from one address, and come back often.
        limits = "connections_per_minute = 100000\nconnections_per_ip = 1000\nloads_per_minute = 1000000"
        return f'{text}\n[limits]\n{limits}\nload_s = 5.0\nlinger_s = 5.0\n[log]\nformat = "json"\nlevel = "info"\n'

    # --- its life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a process."""
        self._child = start_server(self._settings, host="127.0.0.1", port=self.port, log=self._log)
        self.lives += 1

    def abandon(self) -> None:
        """Leave no process behind, whatever happened."""
        if self._child is not None:
            self._child.kill_now()

    async def kill_for(self, seconds: float) -> None:
        """End it as a crash does, and start it again."""
        if self._child is not None:
            self._child.kill_now()
        await asyncio.sleep(seconds)
        self.start()

    async def end_for(self, seconds: float) -> None:
        """End it in order, and start it again."""
        await self._answers()
        await self._end()
        await asyncio.sleep(seconds)
        self.start()

    async def stop_for(self, seconds: float) -> None:
        """Freeze it."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._child.send_signal(signal.SIGCONT)

    async def lock_for(self, seconds: float) -> None:
        """Hold the store's write lock, as a backup or somebody's shell does."""
        connection = sqlite3.connect(self._store, timeout=0.0, isolation_level=None)
        try:
            for _ in range(_LOCK_TRIES):
                try:
                    connection.execute("BEGIN EXCLUSIVE")
                    break
                except sqlite3.OperationalError:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(seconds)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        finally:
            connection.close()

    async def _answers(self) -> None:
        """Wait until it is there: a signal to an interpreter that still imports ends that, and nothing in order."""
        assert self._http is not None and self._child is not None
        until = time.monotonic() + _START_S
        while self._child.returncode is None and time.monotonic() < until:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with self._http.get(f"{self.url}/health/live"):
                    return
            await asyncio.sleep(_POLL_S)

    async def _end(self) -> None:
        if self._child is None:
            return
        await self._child.end(timeout_s=_END_S)
        if self._child.returncode != 0:
            self.problems.append(f"{self.name}: SIGTERM ended it with {self._child.returncode}")

    @asynccontextmanager
    async def running(self, clients: Sequence[WishClient | LatestClient]) -> AsyncIterator[None]:
        """Serve clients with it; ends it, whoever started it."""
        self.clients = list(clients)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as self._http:
            assert self._child is not None, "start it first"
            try:
                await await_ready(self._child, self.url, timeout_s=_READY_S)
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(client.run(), name=client.name) for client in self.clients]
                    try:
                        yield
                    finally:
                        for task in tasks:
                            task.cancel()
            finally:
                await self._end()

    # --- what it says ---------------------------------------------------------------------------------

    async def snapshot(self, channel: str) -> dict[str, Any] | None:
        """Return what it says of a channel now, None where it says nothing."""
        assert self._http is not None
        try:
            async with self._http.get(f"{self.url}/api/v1/snapshot", params={"channel": channel}) as response:
                return dict(await response.json()) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def ready(self) -> str:
        """Return what it says of its own health."""
        assert self._http is not None
        try:
            async with self._http.get(f"{self.url}/health/ready") as response:
                return await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"no answer: {error!r}"

    async def metrics(self) -> str:
        """Return its metrics, empty where there is no answer."""
        assert self._http is not None
        try:
            async with self._http.get(f"{self.url}/metrics") as response:
                return await response.text() if response.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError):
            return ""

    def rss_kib(self) -> int:
        """Return its resident memory."""
        assert self._child is not None
        for line in Path(f"/proc/{self._child.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def look(self) -> list[str]:
        """Return what went wrong with the process since the last look: its end, and what it logged as an error."""
        found, self.problems = self.problems, []
        if self._child is not None and self._child.returncode is not None:
            found.append(f"{self.name}: ended by itself with {self._child.returncode}: {self._child.said()}")
            self.start()
        with self._log.open("rb") as file:
            file.seek(self._read_to)
            new = file.read()
            self._read_to += new.rfind(b"\n") + 1
        for line in new.splitlines():
            try:
                entry = orjson.loads(line)
            except orjson.JSONDecodeError:
                found.append(f"{self.name}: {line.decode(errors='replace')[:400]}")
                continue
            if entry.get("level") in _BAD_LEVELS or "exception" in entry:
                found.append(f"{self.name}: {line.decode(errors='replace')[:2000]}")
        return found[:_SOME]
