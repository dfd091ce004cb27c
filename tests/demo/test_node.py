"""The node as a process: started, frozen, killed, brought back, and never left behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rtserver.demo.lab import Lab
from rtserver.demo.node import AnvilNode, NodeFailed, PortInUse
from rtserver.demo.ports import free_port, is_port_free
from rtserver.demo.process import Child
from rtserver.demo.rpc import JsonRpc, NodeUnreachable, RpcError
from rtserver.demo.toolchain import Toolchain


async def test_a_port_in_use_is_named(toolchain: Toolchain, node: AnvilNode) -> None:
    with pytest.raises(PortInUse, match=f"port {node.port} on 127.0.0.1 is in use"):
        async with AnvilNode(toolchain, port=node.port):
            pass


async def test_the_error_has_the_node_s_own_words(toolchain: Toolchain, tmp_path: Path) -> None:
    broken = tmp_path / "state.json"
    broken.write_text("not a state")
    with pytest.raises(NodeFailed, match=r"ended with code \d+: .*state"):
        async with AnvilNode(toolchain, load_state=broken):
            pass


async def test_nothing_is_left_behind(toolchain: Toolchain) -> None:
    async with AnvilNode(toolchain) as node:
        port, pid = node.port, node.pid
        assert pid is not None
        node.freeze()
    assert is_port_free(port)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_frozen_node_keeps_its_connections_and_answers_after(node: AnvilNode) -> None:
    number = await node.rpc("eth_blockNumber")
    async with JsonRpc(node.http_url, timeout_s=0.2) as impatient:
        node.freeze()
        with pytest.raises(NodeUnreachable):
            await impatient.call("eth_blockNumber")
        waiting = asyncio.ensure_future(node.rpc("eth_blockNumber"))
        node.thaw()
        assert await waiting == number


async def test_a_restart_keeps_the_chain_and_its_past(lab: Lab) -> None:
    pool = lab.pools[0]
    before = await lab.mine()
    old = await lab.slot0(pool, block=before.hash)
    await lab.swap(pool, True, 10**18)
    after = await lab.mine()
    port, pid = lab.node.port, lab.node.pid
    await lab.node.restart()
    assert (lab.node.port, lab.node.pid) != (port, pid)
    assert lab.node.port == port
    assert (await lab.node.rpc("eth_getBlockByNumber", ["latest", False]))["hash"] == after.hash
    assert await lab.slot0(pool, block=before.hash) == old
    assert (await lab.mine()).parent_hash == after.hash


async def test_a_killed_node_comes_back_as_it_was_last_saved(lab: Lab) -> None:
    saved = await lab.mine()
    await lab.node.restart()
    await lab.mine()
    await lab.node.kill()
    assert lab.node.pid is None
    with pytest.raises(NodeUnreachable):
        await lab.node.rpc("eth_blockNumber")
    await lab.node.restart()
    assert (await lab.node.rpc("eth_getBlockByNumber", ["latest", False]))["hash"] == saved.hash


async def test_the_past_is_readable_for_more_than_300_blocks(lab: Lab) -> None:
    pool = lab.pools[0]
    first = lab.head
    price = lab.pool_state(pool).sqrt_price
    await lab.swap(pool, True, 10**18)
    await lab.mine(350)
    assert lab.pool_state(pool).sqrt_price != price
    assert (await lab.slot0(pool, block=first.hash))[0] == price


@pytest.mark.parametrize("block_time_s", [0.1, 1])
async def test_blocks_come_by_themselves(node: AnvilNode, block_time_s: float) -> None:
    before = int(await node.rpc("eth_blockNumber"), 16)
    await node.set_block_time(block_time_s)
    filter_id = await node.rpc("eth_newBlockFilter")
    async with asyncio.timeout(10):
        while not await node.rpc("eth_getFilterChanges", [filter_id]):
            await asyncio.sleep(0)
    assert int(await node.rpc("eth_blockNumber"), 16) > before


async def test_an_rpc_error_is_the_node_s_own(node: AnvilNode) -> None:
    with pytest.raises(RpcError) as caught:
        await node.rpc("eth_noSuchThing")
    assert caught.value.code == -32601
    assert caught.value.method == "eth_noSuchThing"


def test_a_free_port_is_free_until_someone_listens() -> None:
    port = free_port()
    assert is_port_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not is_port_free(port)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import signal, sys; from pathlib import Path; from rtserver.demo.process import Child\n"
        "print(Child(['sleep', '600'], log=Path(sys.argv[1])).pid, flush=True)\n"
        "signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.kill()
            poller = select.poll()
            poller.register(child, select.POLLIN)
            assert poller.poll(10_000), "the child outlived its parent by ten seconds"
        finally:
            os.close(child)


async def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    log = tmp_path / "log"
    child = Child([sys.executable, "-c", script], log=log)
    async with asyncio.timeout(10):
        while child.said() != "deaf":
            await asyncio.sleep(0)
        await child.end(timeout_s=0.1)
    assert child.returncode == -signal.SIGKILL
