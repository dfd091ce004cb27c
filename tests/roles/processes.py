"""Engines, gateways and a Redis as processes of their own, on a chain with a market."""

from __future__ import annotations

import asyncio
import io
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from broker.redis_server import RedisServer
from rich.console import Console

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.demo.ports import free_port
from rtserver.demo.process import Child
from rtserver.demo.server import await_ready, url_of
from rtserver.demo.settings_file import settings_toml
from rtserver.tools.verify import run_verify

__all__ = ["Deployed", "Process", "Served", "deployed", "eventually", "mining"]


class Served(Protocol):
    """Where something is served."""

    url: str
    child: Child


class Process:
    """One of them."""

    def __init__(self, deployed: Deployed, role: str, *options: str) -> None:
        self.role = role
        self.port = free_port()
        self.url = url_of("127.0.0.1", self.port)
        self.ws_url = f"ws://127.0.0.1:{self.port}/ws"
        self.log = deployed.folder / f"{role}-{self.port}.log"
        command = [sys.executable, "-m", "rtserver", "serve", "--role", role, "--port", str(self.port)]
        self._command = [*command, "--config", str(deployed.settings), *options]
        self.start()

    def start(self) -> None:
        """Start it, or start it again on its port after it was killed."""
        self.child = Child(self._command, log=self.log)

    async def ready(self) -> None:
        await await_ready(self.child, self.url)

    async def health(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/health/ready") as response:
            return dict(await response.json())

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over all samples with these labels."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = [
            line for line in lines if line.startswith((f"{name}{{", f"{name} ")) and all(w in line for w in wanted)
        ]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    async def chain(self) -> dict[str, Any]:
        """Return what it says of its one chain; empty while it does not answer."""
        with suppress(aiohttp.ClientError, IndexError):
            return dict((await self.health())["chains"][0])
        return {}

    async def snapshot(self, channel: str) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/api/v1/snapshot", params={"channel": channel}) as response,
        ):
            return dict(await response.json())

    def freeze(self) -> None:
        self.child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.child.send_signal(signal.SIGCONT)


class Deployed:
    """All processes of a test; `redis_url` is where they find Redis, if not at the server itself."""

    def __init__(
        self, lab: Lab, redis: RedisServer, folder: Path, *, redis_url: str | None = None, store: Path | None = None
    ) -> None:
        self.lab = lab
        self.owner = lab.owners[0]
        self.redis = redis
        self.folder = folder
        self.settings = folder / "rtserver.toml"
        self.processes: list[Process] = []
        text = settings_toml(
            lab.deployment,
            ws_url=lab.node.ws_url,
            http_url=lab.node.http_url,
            owners=lab.owners[:3],
            store=store,
        )
        self.settings.write_text(f'{text}\n[redis]\nurl = "{redis_url or redis.url}"\n')

    def start(self, role: str, *options: str) -> Process:
        self.processes.append(process := Process(self, role, *options))
        return process

    async def engine(self) -> Process:
        """Return the engine that is in charge, once there is one."""
        async with asyncio.timeout(30):
            while True:
                for process in self.processes:
                    if process.role == "engine" and process.child.returncode is None:
                        with suppress(TimeoutError):
                            async with asyncio.timeout(1.0):
                                if (await process.chain()).get("inCharge"):
                                    return process
                await asyncio.sleep(0.05)

    async def end(self) -> None:
        """End all processes."""
        await asyncio.gather(*(process.child.end(timeout_s=6.0) for process in self.processes))

    async def verify(self, process: Served, blocks: int = 2) -> None:
        """Compare everything that a process serves with the chain, over some blocks."""
        said = []
        # 2 is "could not verify": a busy machine may take longer for a block than it waits.
        for _ in range(3):
            out, err = io.StringIO(), io.StringIO()
            status = await run_verify(
                url=process.url,
                rpc=self.lab.node.http_url,
                owners=[],
                everything=True,
                blocks=blocks,
                limit=1000,
                as_json=False,
                out=Console(file=out, width=300),
                err=Console(file=err, width=300),
            )
            said.append(f"status {status}: {out.getvalue()}{err.getvalue()}")
            if status != 2:
                break
        assert status == 0, "\n".join([*said, process.child.said()])


async def eventually(condition: Callable[[], Any], within_s: float = 30.0) -> None:
    """Wait until something that happens elsewhere has happened."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def mining(world: Deployed) -> AsyncIterator[None]:
    """Blocks and trades for as long as the context lasts."""
    market = Market(world.lab, seed=2)

    async def forever() -> None:
        while True:
            await market.steps(1)
            await asyncio.sleep(0.3)

    task = asyncio.create_task(forever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def deployed(lab: Lab, folder: Path, store: Path | None = None) -> AsyncIterator[Deployed]:
    """Yield a Redis and what is started beside it, with a store if one is named; all of it is ended."""
    redis = RedisServer(folder)
    await redis.start()
    one = Deployed(lab, redis, folder, store=store)
    try:
        yield one
    finally:
        await one.end()
        await redis.end()
