"""The real process, killed, stopped and started again, with clients that stay."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.tools.verify import run_verify

from .restarting import ENUMERATE, Served, read_json, serving, until


async def traded(lab: Lab, seed: int) -> Market:
    market = Market(lab, seed=seed)
    await market.steps(25)
    return market


async def verify(served: Served) -> None:
    """Every position is the chain's, value by value."""
    checking = asyncio.create_task(
        run_verify(url=served.url, rpc=served.lab.node.http_url, owners=served.lab.owners, blocks=1, patience_s=20)
    )
    while not checking.done():
        await served.lab.mine()
        await asyncio.sleep(0.2)
    assert checking.result() == 0


async def test_killed_and_started_again(lab: Lab, tmp_path: Path) -> None:
    """Nobody is enumerated again; clients come back by themselves, to new epochs, and have missed nothing."""
    market = await traded(lab, 1)
    async with serving(lab, tmp_path) as served:
        await served.start()
        async with served.client() as client:
            await market.steps(3)
            await served.kept()
            assert served.proxy.words[ENUMERATE]
            # Told to clients, and perhaps never kept.
            await market.step()
            await served.kill()
            await market.steps(5)
            await served.start()
            await until(lambda: client.stats.reconnects and client.is_connected)
            await market.steps(2)
            await served.assert_served(client)
            assert served.proxy.words[ENUMERATE] == 0
            assert client.stats.mismatches == 0
            assert client.stats.resumed == 0
            await verify(served)


async def test_stopped_and_started_again_and_then_killed(lab: Lab, tmp_path: Path) -> None:
    """After an orderly end clients go on where they were, without a snapshot; after a crash they do not."""
    market = await traded(lab, 2)
    async with serving(lab, tmp_path) as served:
        server = await served.start()
        async with served.client() as client:
            await market.steps(3)
            await served.kept()
            await served.assert_served(client)
            before = client.stats.snapshots
            await server.end(timeout_s=6.0)
            assert server.returncode == 0
            await market.steps(4)
            await served.start()
            await until(lambda: client.stats.resumed == len(lab.owners))
            await market.steps(2)
            await served.assert_served(client)
            assert served.proxy.words[ENUMERATE] == 0
            assert client.stats.snapshots == before
            # The streams of that end were taken up once.
            await served.kill()
            reconnects = client.stats.reconnects
            await served.start()
            await until(lambda: client.stats.reconnects > reconnects and client.is_connected)
            await market.steps(2)
            await served.assert_served(client)
            assert client.stats.resumed == len(lab.owners)
            assert client.stats.mismatches == 0


async def test_a_reorganisation_while_stopped(lab: Lab, tmp_path: Path) -> None:
    """Streams whose block left the chain don't go on: their clients could not be told what was lost."""
    market = await traded(lab, 4)
    async with serving(lab, tmp_path) as served:
        server = await served.start()
        async with served.client() as client:
            await market.steps(6)
            await served.kept()
            await server.end(timeout_s=6.0)
            await lab.node.rpc("anvil_reorg", [3, []])
            await lab.catch_up()
            await market.steps(5)
            await served.start()
            await until(lambda: client.stats.reconnects and client.is_connected)
            await market.step()
            await served.assert_served(client)
            assert client.stats.resumed == 0
            assert client.stats.mismatches == 0


async def test_the_node_is_away_when_the_server_starts(lab: Lab, tmp_path: Path) -> None:
    """What was kept waits for the node, whoever asks meanwhile."""
    market = await traded(lab, 5)
    async with serving(lab, tmp_path) as served:
        await served.start()
        async with served.client() as client:
            await served.kept()
            await served.kill()
            await market.step()
            served.proxy.reset()
            lab.node.freeze()
            try:
                await asyncio.to_thread(served.append, "[limits]\nload_s = 0.5\n")
                served.launch()
                await served.answers()
                # Their wishes come to nothing, and take nothing with them.
                for owner in lab.owners[:3]:
                    answer = await read_json(f"{served.url}/api/v1/positions/summary?owner={owner}")
                    assert answer["code"] == "chain_unavailable"
            finally:
                lab.node.thaw()
            await until(lambda: client.stats.reconnects and client.is_connected, within_s=60)
            await market.step()
            await served.assert_served(client)
            assert served.proxy.words[ENUMERATE] == 0


async def test_a_full_disk(lab: Lab, tmp_path: Path) -> None:
    """Blocks go on, exact; it is said; and once there is room again, checkpoints go on."""
    market = await traded(lab, 6)
    async with serving(lab, tmp_path) as served:
        server = await served.start()
        async with served.client() as client:
            await served.kept()
            # No file may grow any more: the kernel refuses what the process writes.
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            await market.steps(4)
            await served.assert_served(client)
            async with asyncio.timeout(20):
                while await served.metric("rtserver_store_errors_total") < 1:
                    await market.step()
            await served.assert_served(client)
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await served.kept()
            assert server.returncode is None
            await served.kill()
            await served.start()
            await until(lambda: client.stats.reconnects and client.is_connected)
            await market.step()
            await served.assert_served(client)
            assert served.proxy.words[ENUMERATE] == 0


def _damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


async def test_a_broken_store_is_a_cold_start(lab: Lab, tmp_path: Path) -> None:
    await traded(lab, 7)
    async with serving(lab, tmp_path) as served:
        server = await served.start()
        async with served.client() as client:
            await served.kept()
            await server.end(timeout_s=6.0)
            await asyncio.to_thread(_damage, served.store)
            await served.start()
            await until(lambda: client.stats.reconnects and client.is_connected)
            await lab.mine()
            await served.assert_served(client)
            assert "store is broken, begun anew" in served.said()
            await served.kept()


@pytest.mark.parametrize("option", ["--no-store", "path"])
async def test_nothing_is_kept_unless_it_may_be(lab: Lab, tmp_path: Path, option: str) -> None:
    """Switched off, there is no file; asked for where it can't be, nothing starts."""
    async with serving(lab, tmp_path) as served:
        if option == "path":
            text = served.settings.read_text().replace(str(served.store), str(served.settings) + "/store.sqlite3")
            served.settings.write_text(text)
            server = served.launch()
            assert await server.wait() == 2
            assert "store.path = " in served.said() and "cannot be written" in served.said()
        else:
            text = served.settings.read_text()
            served.settings.write_text(text.replace(f'path = "{served.store}"', "enabled = false"))
            await served.start()
            assert not served.store.exists()
