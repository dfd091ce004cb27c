"""A real server that is ended and started again, on one store: what tests of restarts share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from chain.counting import CountingProxy

from rtserver.client import RtClient
from rtserver.demo.lab import Lab
from rtserver.demo.ports import free_port
from rtserver.demo.process import Child
from rtserver.demo.server import await_ready, start_server, url_of
from rtserver.demo.settings_file import settings_toml

__all__ = ["ENUMERATE", "Served", "read_json", "serving", "until"]

ENUMERATE = "2f745c59"


async def until(condition: Callable[[], Any], *, within_s: float = 20.0) -> None:
    """Wait until something that happens in another process has happened."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


async def read_json(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return dict(await response.json())


class Served:
    """A server between its lives."""

    def __init__(self, lab: Lab, proxy: CountingProxy, folder: Path) -> None:
        self.lab = lab
        self.proxy = proxy
        self.store = folder / "store.sqlite3"
        self.log = folder / "server.log"
        self.settings = folder / "rtserver.toml"
        self.port = free_port()
        self.url = url_of("127.0.0.1", self.port)
        self.server: Child | None = None
        text = settings_toml(lab.deployment, ws_url=lab.node.ws_url, http_url=proxy.url, store=self.store)
        self.settings.write_text(text.replace("[store]", "[store]\nevery_s = 0.1"))

    def launch(self) -> Child:
        """Start a process."""
        self.server = start_server(self.settings, host="127.0.0.1", port=self.port, log=self.log)
        return self.server

    async def start(self) -> Child:
        """Start a process and wait until it is ready; what it asks of the node is counted from here."""
        self.proxy.reset()
        server = self.launch()
        await await_ready(server, self.url)
        return server

    def append(self, text: str) -> None:
        """Add settings."""
        with self.settings.open("a") as file:
            file.write(text)

    async def answers(self) -> None:
        """Wait until the process serves, whether it is ready or not."""
        async with asyncio.timeout(30):
            while True:
                with suppress(aiohttp.ClientError):
                    await read_json(f"{self.url}/health/live")
                    return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """End it as a crash does."""
        assert self.server is not None
        self.server.kill_now()

    async def metric(self, name: str) -> float:
        """Return a metric of the one chain; -1 where it has none."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            for line in (await response.text()).splitlines():
                if line.startswith(name + "{"):
                    return float(line.rsplit(" ", 1)[1])
        return -1.0

    async def kept(self) -> None:
        """Wait until the chain's head is in the store."""
        await self.lab.mine()
        async with asyncio.timeout(20):
            while await self.metric("rtserver_store_head_number") < self.lab.head.number:
                await asyncio.sleep(0.02)

    def channel(self, owner: str) -> str:
        return f"owner:{self.lab.deployment.chain_id}:{owner}"

    def said(self) -> str:
        return self.log.read_text()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[RtClient]:
        """Connect a client to all owners."""
        async with RtClient(f"ws://127.0.0.1:{self.port}/ws") as client:
            for owner in self.lab.owners:
                await (await client.subscribe(self.channel(owner))).opened()
            yield client

    async def assert_served(self, client: RtClient) -> None:
        """Each owner's positions are the chain's, and the client's copy is what the server says of the head."""
        head = self.lab.head
        for owner in self.lab.owners:
            staked = [token_id for token_id, user in self.lab.book.depositors.items() if user == owner]
            held = {f"uniswap-v3:{token_id}" for token_id in [*self.lab.book.owned_by(owner), *staked]}
            name = next(name for name in client.states if name.lower() == self.channel(owner).lower())
            async with asyncio.timeout(20):
                while True:
                    answer = await read_json(f"{self.url}/api/v1/snapshot?channel={name}")
                    is_there = answer.get("block", {}).get("hash") == head.hash
                    if is_there and client.states[name] == answer["state"]:
                        break
                    await asyncio.sleep(0.02)
            assert set(client.states[name]) == held


@asynccontextmanager
async def serving(lab: Lab, folder: Path) -> AsyncIterator[Served]:
    """Prepare a server; what runs of it in the end is ended."""
    proxy = CountingProxy(lab.node.http_url)
    proxy.watched = (ENUMERATE,)
    async with proxy.running():
        served = await asyncio.to_thread(Served, lab, proxy, folder)
        try:
            yield served
        finally:
            if served.server is not None:
                await served.server.end(timeout_s=6.0)
