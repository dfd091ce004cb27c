"""A whole server whose node hangs, or is slower than its blocks: what it costs, and what it says meanwhile."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from faults.actions import Delay
from faults.proxy import FaultProxy

from rtserver.client import RtClient
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.demo.ports import free_port
from rtserver.demo.process import Child
from rtserver.demo.server import await_ready, start_server, url_of
from rtserver.demo.settings_file import settings_toml

from .restarting import read_json
from .served import Served


def cpu_s(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    # After the name, which may hold anything, utime and stime are the 12th and 13th fields; proc(5).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_server_whose_node_hangs_is_idle(served: Served) -> None:
    """With reads, polls and a subscription outstanding: web3's own way of waiting would take a whole core."""
    async with RtClient(f"{served.url.replace('http', 'ws')}/ws") as client:
        await (await client.subscribe(f"owner:31337:{served.lab.owners[0]}")).opened()
        served.lab.node.freeze()
        try:
            async with asyncio.timeout(20):
                while (await chain_of(served.url))["ready"]:
                    await asyncio.sleep(0.1)
            began, used = time.monotonic(), cpu_s(served.server.pid)
            # A share of time takes time to measure; nothing is waited for.
            await asyncio.sleep(3.0)
            share = (cpu_s(served.server.pid) - used) / (time.monotonic() - began)
        finally:
            served.lab.node.thaw()
        assert share < 0.1
        async with asyncio.timeout(20):
            while not (await chain_of(served.url))["ready"]:
                await asyncio.sleep(0.1)


async def chain_of(url: str) -> dict[str, Any]:
    (chain,) = (await read_json(f"{url}/health/ready"))["chains"]
    return dict(chain)


@asynccontextmanager
async def serving(lab: Lab, proxy: FaultProxy, folder: Path) -> AsyncIterator[tuple[str, Child]]:
    settings, port = folder / "rtserver.toml", free_port()
    text = settings_toml(lab.deployment, ws_url=proxy.ws_url, http_url=proxy.http_url, block_time_s=0.2)
    await asyncio.to_thread(settings.write_text, text)
    server = start_server(settings, host="127.0.0.1", port=port, log=folder / "server.log")
    try:
        url = url_of("127.0.0.1", port)
        await await_ready(server, url)
        yield url, server
    finally:
        await server.end(timeout_s=5.0)


async def test_a_chain_faster_than_its_node_is_followed_by_its_newest_head(lab: Lab, tmp_path: Path) -> None:
    """Five blocks a second, and a node that takes half a second for each answer."""
    head = f"head:{lab.deployment.chain_id}"
    async with (
        FaultProxy(lab.node.http_url, lab.node.ws_url) as proxy,
        serving(lab, proxy, tmp_path) as (url, _),
        RtClient(f"{url.replace('http', 'ws')}/ws") as client,
    ):
        market = Market(lab, seed=64)
        await market.steps(10)
        for channel in (head, f"owner:{lab.deployment.chain_id}:{lab.owners[0]}"):
            await (await client.subscribe(channel)).opened()
        slow = proxy.add(Delay(0.5), via="http")
        frames, behind, blocks = client.stats.frames, 0, 25
        for _ in range(blocks):
            await market.step()
            behind = max(behind, (await chain_of(url))["behindBlocks"])
            await asyncio.sleep(0.2)
        async with asyncio.timeout(20):
            while client.states[head]["head"]["number"] != lab.head.number:
                await asyncio.sleep(0.05)
        assert behind > 1, "it says how far behind it is"
        assert client.stats.frames - frames < blocks, "the newest head, not one after the other"
        slow.remove()
        await lab.mine()
        async with asyncio.timeout(20):
            while (await chain_of(url))["behindBlocks"] or client.states[head]["head"]["number"] != lab.head.number:
                await asyncio.sleep(0.05)
        answer = await read_json(f"{url}/api/v1/snapshot?channel={head}")
        assert answer["state"] == client.states[head]
