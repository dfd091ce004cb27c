"""The processes that are killed: engines and gateways with what the soak knows of a server, and Redis."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
from broker.redis_server import RedisServer
from chain.soak.served import Endpoint, SoakServer

from rtserver.demo.deployment import Deployment

__all__ = ["ChaosRedis", "RoleServer"]

_LOOK_S: Final = 0.3
# The exit code of settings that can't be served with.
_NO_REDIS: Final = 2


class RoleServer(SoakServer):
    """An engine or a gateway between its lives."""

    def __init__(
        self, name: str, role: str, redis_url: str, deployment: Deployment, gate: Endpoint, folder: Path
    ) -> None:
        self._role = role
        self._redis_url = redis_url
        # What is stopped or started waits for what did so before.
        self.turn = asyncio.Lock()
        self.refusals = 0
        super().__init__(name, deployment, [gate], folder)

    def _text(self, deployment: Deployment, proxies: Sequence[Endpoint]) -> str:
        text = super()._text(deployment, proxies)
        return f'role = "{self._role}"\n{text}\n[redis]\nurl = "{self._redis_url}"\n'

    async def supervise(self) -> None:
        """Start it again whenever it found no Redis at its start, as whatever supervises it in earnest does."""
        while True:
            await asyncio.sleep(_LOOK_S)
            async with self.turn:
                if self._child is not None and self._child.returncode == _NO_REDIS:
                    self.refusals += 1
                    self.start()

    def look(self) -> list[str]:
        """Return what went wrong with it; that it found no Redis at its start is what it should say."""
        return [problem for problem in super().look() if "no Redis answers there" not in problem]

    async def is_in_charge(self) -> bool:
        """Return whether it says so; nothing that is frozen or gone does."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.0)) as session,
                session.get(f"{self.url}/health/ready") as response,
            ):
                chains = (await response.json())["chains"]
        except (aiohttp.ClientError, TimeoutError):
            return False
        return any(chain.get("inCharge") for chain in chains)


class ChaosRedis:
    """A Redis with a disk: killed, it has what it told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = RedisServer(folder, "--appendonly", "yes", "--dir", str(folder))
        self.url = self._server.url
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Start it."""
        await self._server.start()

    async def end(self) -> None:
        """End it, whatever it is doing."""
        await self._server.end()

    async def kill_for(self, seconds: float, *, emptied: bool) -> None:
        """Kill it, and start it again with its data or without."""
        async with self._turn:
            self._server.kill()
            await asyncio.sleep(seconds)
            if emptied:
                await asyncio.to_thread(shutil.rmtree, self._folder / "appendonlydir")
            await self._server.start()

    async def stop_for(self, seconds: float) -> None:
        """Freeze it."""
        async with self._turn:
            self._server.freeze()
            try:
                await asyncio.sleep(seconds)
            finally:
                self._server.thaw()
