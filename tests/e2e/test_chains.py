"""Several chains in one process, each on its own: one that is down, hangs or races holds up no other.

No times are compared: while one chain misbehaves, each block of the others is a frame of its own to their
clients, in order, none merged and none missing; a delay would merge them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import ACCOUNTS, DeployedState

from rtserver.client import RtClient
from rtserver.demo.contracts import Contracts
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.demo.node import AnvilNode
from rtserver.demo.ports import free_port
from rtserver.demo.process import Child
from rtserver.demo.server import start_server, url_of
from rtserver.demo.settings_file import settings_toml
from rtserver.demo.toolchain import Toolchain

from .restarting import read_json

IDS = (31337, 31338, 31339)
BLOCKS = 12


@dataclass
class Chains:
    """A server on three chains; the third one's node may be started later."""

    labs: list[Lab]
    url: str
    port: int
    server: Child
    late: AnvilNode
    settings: Path

    async def reports(self) -> dict[int, dict[str, Any]]:
        report = await read_json(f"{self.url}/health/ready")
        return {chain["chainId"]: chain for chain in report["chains"]}

    async def until_ready(self, wanted: dict[int, bool]) -> None:
        async with asyncio.timeout(30):
            while {chain_id: report["ready"] for chain_id, report in (await self.reports()).items()} != wanted:
                await asyncio.sleep(0.05)

    async def metric(self, name: str, chain: str) -> float:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and f'"{chain}"' in line)


def _settings(labs: Sequence[tuple[int, str, str]], deployment: Any, folder: Path) -> Path:
    parts = []
    for chain_id, ws_url, http_url in labs:
        text = settings_toml(deployment, ws_url=ws_url, http_url=http_url, name=f"chain-{chain_id}")
        text = text.replace(f"id = {deployment.chain_id}", f"id = {chain_id}", 1)
        parts.append(text[: text.index("[store]")])
    path = folder / "chains.toml"
    path.write_text(
        "\n".join(parts).replace("block_time_s = 1.0", "block_time_s = 1.0\nhead_limit_s = 3.0\nrpc_timeout_s = 2.0")
        + f'\n[store]\npath = "{folder}/store.sqlite3"\nevery_s = 0.1\n'
    )
    return path


@pytest.fixture
async def chains(
    toolchain: Toolchain, contracts: Contracts, deployed_state: DeployedState, tmp_path: Path
) -> AsyncIterator[Chains]:
    async with AsyncExitStack() as stack:
        labs = []
        for chain_id in IDS[:2]:
            node = AnvilNode(toolchain, accounts=ACCOUNTS, load_state=deployed_state.path, chain_id=chain_id)
            lab = Lab(await stack.enter_async_context(node), contracts, deployed_state.deployment)
            await lab.catch_up()
            await Market(lab, seed=chain_id).steps(15)
            labs.append(lab)
        late = AnvilNode(
            toolchain, accounts=ACCOUNTS, load_state=deployed_state.path, chain_id=IDS[2], port=free_port()
        )
        urls = [(chain_id, lab.node.ws_url, lab.node.http_url) for chain_id, lab in zip(IDS, labs, strict=False)]
        urls.append((IDS[2], late.ws_url, late.http_url))
        settings = await asyncio.to_thread(_settings, urls, deployed_state.deployment, tmp_path)
        port = free_port()
        server = start_server(settings, host="127.0.0.1", port=port, log=tmp_path / "server.log")
        opened = Chains(labs, url_of("127.0.0.1", port), port, server, late, settings)
        stack.push_async_callback(server.end, timeout_s=6.0)
        await _until_it_answers(opened)
        yield opened
        await late.__aexit__(None, None, None)


async def _until_it_answers(chains: Chains) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await chains.reports()
            except aiohttp.ClientError:
                assert chains.server.returncode is None, chains.server.said()
                await asyncio.sleep(0.05)
            else:
                return


async def every_block_is_a_frame(chains: Chains, index: int, *, blocks: int = BLOCKS) -> None:
    """Mine block after block on one chain, each as soon as the client has the one before."""
    lab = chains.labs[index]
    name = f"head:{IDS[index]}"
    async with RtClient(f"ws://127.0.0.1:{chains.port}/ws") as client:
        head = await client.subscribe(name)
        await head.opened()
        await lab.mine()
        async with asyncio.timeout(30):
            while client.states[name]["head"]["number"] != lab.head.number:
                await asyncio.sleep(0.01)
        feed = client.blocks()
        got = []
        for _ in range(blocks):
            await lab.mine()
            async with asyncio.timeout(30):
                got.append((await anext(aiter(feed))).block.number)
        assert got == list(range(lab.head.number - blocks + 1, lab.head.number + 1))
        feed.close()


async def test_one_is_down_at_the_start(chains: Chains) -> None:
    """The others serve; the server is not ready and says which chain it is; and it comes as soon as it can."""
    await chains.until_ready({IDS[0]: True, IDS[1]: True, IDS[2]: False})
    assert "no head yet" in (await chains.reports())[IDS[2]]["reason"]
    await asyncio.gather(every_block_is_a_frame(chains, 0), every_block_is_a_frame(chains, 1))
    await chains.late.__aenter__()
    # Fresh heads for the two that mine on demand.
    async with asyncio.timeout(30):
        while not all(report["ready"] for report in (await chains.reports()).values()):
            for lab in chains.labs:
                await lab.mine()
            await asyncio.sleep(0.1)


async def test_one_hangs(chains: Chains) -> None:
    """A node that takes every request and answers none; ready again when it answers again."""
    await chains.until_ready({IDS[0]: True, IDS[1]: True, IDS[2]: False})
    chains.labs[1].node.freeze()
    try:
        stranger = "0x" + "77" * 20
        waiting = asyncio.create_task(
            read_json(f"{chains.url}/api/v1/positions/summary?owner={stranger}&chainId={IDS[1]}")
        )
        for _ in range(3):
            await every_block_is_a_frame(chains, 0)
        async with asyncio.timeout(30):
            while (await chains.reports())[IDS[1]]["ready"]:
                await chains.labs[0].mine()
                await asyncio.sleep(0.1)
        assert not waiting.done() or waiting.result()["status"] == 503
        await chains.labs[0].mine()
        await chains.until_ready({IDS[0]: True, IDS[1]: False, IDS[2]: False})
    finally:
        chains.labs[1].node.thaw()
    await waiting
    await every_block_is_a_frame(chains, 1)
    assert (await chains.reports())[IDS[1]]["ready"]


async def test_one_races(chains: Chains) -> None:
    """Blocks as fast as a node can mine them; the other chain's are not merged by that."""
    await chains.until_ready({IDS[0]: True, IDS[1]: True, IDS[2]: False})
    racer = chains.labs[1]
    is_over = asyncio.Event()

    async def race() -> None:
        while not is_over.is_set():
            await asyncio.gather(*(racer.node.rpc("evm_mine") for _ in range(20)))

    racing = asyncio.create_task(race())
    try:
        for _ in range(3):
            await every_block_is_a_frame(chains, 0)
    finally:
        is_over.set()
        await racing
    await racer.catch_up()
    await every_block_is_a_frame(chains, 1)
    # Each asks its own node: the blocks of one are nothing that the other's budget pays for.
    asked = [await chains.metric("rtserver_blocks_total", f"chain-{chain_id}") for chain_id in IDS[:2]]
    assert asked[1] > asked[0]


async def test_killed_with_one_down(chains: Chains) -> None:
    """What is kept of a chain that is away stays kept; the others go on from theirs."""
    await chains.until_ready({IDS[0]: True, IDS[1]: True, IDS[2]: False})
    owner = chains.labs[0].owners[0]
    summaries = [f"{chains.url}/api/v1/positions/summary?owner={owner}&chainId={chain_id}" for chain_id in IDS[:2]]
    before = [await read_json(summary) for summary in summaries]
    for index in (0, 1):
        async with asyncio.timeout(20):
            await chains.labs[index].mine()
            while (
                await chains.metric("rtserver_store_head_number", f"chain-{IDS[index]}")
                < chains.labs[index].head.number
            ):
                await asyncio.sleep(0.05)
    chains.server.kill_now()
    chains.labs[1].node.freeze()
    log = chains.settings.with_name("again.log")
    again = chains.server = start_server(chains.settings, host="127.0.0.1", port=chains.port, log=log)
    try:
        await _until_it_answers(chains)
        after = await read_json(summaries[0])
        assert [p["tokenId"] for p in after["positions"]] == [p["tokenId"] for p in before[0]["positions"]]
        chains.labs[1].node.thaw()
        async with asyncio.timeout(30):
            while "positions" not in (later := await read_json(summaries[1])):
                await asyncio.sleep(0.1)
        assert [p["tokenId"] for p in later["positions"]] == [p["tokenId"] for p in before[1]["positions"]]
    finally:
        chains.labs[1].node.thaw()
        await again.end(timeout_s=6.0)
