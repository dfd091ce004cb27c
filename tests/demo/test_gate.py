"""The door to the demo's node: what it lets through, in which order, and what shows through it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import orjson
import pytest
import websockets

from rtserver.demo.gate import Gate
from rtserver.demo.node import AnvilNode, PortInUse
from rtserver.demo.ports import free_port
from rtserver.demo.rpc import JsonRpc, NodeUnreachable, RpcError
from rtserver.demo.turnstile import Turnstile

_SINK = "0x" + "77" * 20


@pytest.fixture
async def gate(node: AnvilNode) -> AsyncIterator[Gate]:
    async with Gate(node, port=free_port(), block_time_s=0.05) as opened:
        yield opened


@pytest.fixture
async def rpc(gate: Gate) -> AsyncIterator[JsonRpc]:
    async with JsonRpc(gate.http_url) as client:
        yield client


async def test_reorgs_beside_mining_leave_a_whole_chain(rpc: JsonRpc) -> None:
    """Straight at the node, this finds a hole or a lost block within some 150 reorgs."""
    accounts = await rpc.call("eth_accounts")
    start = int(await rpc.call("eth_blockNumber"), 16)
    await rpc.call("anvil_mine", ["0x5"])  # anvil refuses to go below what it was loaded with
    chance = random.Random(5)

    async def pay(sender: str) -> None:
        while True:
            # Its own next nonce, anew each time: what a reorganisation dropped leaves no gap that way.
            nonce = await rpc.call("eth_getTransactionCount", [sender, "latest"])
            payment = {"from": sender, "to": _SINK, "value": "0x1", "gas": "0x5208", "gasPrice": "0x0", "nonce": nonce}
            with suppress(RpcError):  # the one before waits for its block
                await rpc.call("eth_sendTransaction", [payment])
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as group:
        payers = [group.create_task(pay(sender)) for sender in accounts[:4]]
        for _ in range(60):
            await asyncio.sleep(chance.uniform(0.02, 0.1))
            await rpc.call("anvil_reorg", [chance.randint(1, 3), []])
        for payer in payers:
            payer.cancel()
    head = int(await rpc.call("eth_blockNumber"), 16)
    blocks = await rpc.batch([("eth_getBlockByNumber", [hex(n), False]) for n in range(start, head + 1)])
    assert all(blocks)
    assert all(block["parentHash"] == before["hash"] for before, block in itertools.pairwise(blocks))
    paid = sum(len(block["transactions"]) for block in blocks[1:])
    assert paid > 10
    balances = await rpc.batch([("eth_getBalance", [_SINK, {"blockHash": blocks[i]["hash"]}]) for i in (0, -1)])
    assert int(balances[1], 16) - int(balances[0], 16) == paid


async def test_a_socket_gets_heads_and_answers(gate: Gate) -> None:
    async with asyncio.timeout(20), websockets.connect(gate.ws_url) as socket:
        for number, (method, params) in enumerate(
            [("eth_subscribe", ["newHeads"]), ("eth_chainId", []), ("evm_mine", []), ("eth_noSuchThing", [])]
        ):
            await socket.send(orjson.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        await socket.send(b"rubbish")
        answers: dict[Any, Any] = {}
        heads: list[str] = []
        while len(answers) < 5 or len(heads) < 3:
            message = orjson.loads(await socket.recv())
            if message.get("method") == "eth_subscription":
                heads.append(message["params"]["result"]["hash"])
            else:
                answers[message.get("id")] = message
    assert answers[0]["result"].startswith("0x")
    assert int(answers[1]["result"], 16) == 31337
    assert "error" not in answers[2]
    assert answers[3]["error"]["code"] == -32601
    assert "error" in answers[None]
    assert len(set(heads)) == len(heads)


async def test_the_node_s_errors_and_rubbish_come_back_as_they_are(gate: Gate, rpc: JsonRpc) -> None:
    with pytest.raises(RpcError) as caught:
        await rpc.call("eth_noSuchThing")
    assert caught.value.code == -32601
    async with aiohttp.ClientSession() as session:
        async with session.post(gate.http_url, data=b"{") as response:
            assert "error" in await response.json(content_type=None)
        async with session.options(gate.http_url) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_a_frozen_node_shows_through_and_goes_on(gate: Gate, node: AnvilNode, rpc: JsonRpc) -> None:
    before = int(await rpc.call("eth_blockNumber"), 16)
    node.freeze()
    async with JsonRpc(gate.http_url, timeout_s=0.3) as impatient:
        for _ in range(3):
            with pytest.raises(NodeUnreachable):
                await impatient.call("eth_blockNumber")
    node.thaw()
    async with asyncio.timeout(10):
        while int(await rpc.call("eth_blockNumber"), 16) < before + 3:
            await asyncio.sleep(0.05)


async def test_a_change_is_waited_for_though_whoever_asked_has_left(node: AnvilNode) -> None:
    """The node mines all the same: a read beside it would be answered from the block that is being mined."""
    async with Gate(node, port=free_port(), block_time_s=1e6) as gate, JsonRpc(gate.http_url) as rpc:
        before = int(await rpc.call("eth_blockNumber"), 16)
        node.freeze()
        async with JsonRpc(gate.http_url, timeout_s=0.3) as impatient:
            with pytest.raises(NodeUnreachable):
                await impatient.call("evm_mine")
        asked = asyncio.ensure_future(rpc.call("eth_blockNumber"))
        node.thaw()
        assert int(await asked, 16) == before + 1


async def test_a_killed_node_closes_sockets_and_its_successor_mines(gate: Gate, node: AnvilNode, rpc: JsonRpc) -> None:
    async with asyncio.timeout(20):
        async with websockets.connect(gate.ws_url) as socket:
            await node.kill()
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
        async with aiohttp.ClientSession() as session, session.post(gate.http_url, data=b"{}") as response:
            assert response.status == 502
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(gate.ws_url)
        await node.restart()
        before = int(await rpc.call("eth_blockNumber"), 16)
        while int(await rpc.call("eth_blockNumber"), 16) == before:
            await asyncio.sleep(0.05)


async def test_a_taken_port_is_said(node: AnvilNode, gate: Gate) -> None:
    port = int(gate.http_url.rpartition(":")[2])
    with pytest.raises(PortInUse):
        async with Gate(node, port=port, block_time_s=1.0):
            raise AssertionError("entered")


async def test_a_change_is_alone_and_in_line() -> None:
    turnstile = Turnstile()
    said: list[str] = []
    leave = asyncio.Event()

    async def read(name: str) -> None:
        async with turnstile.reading():
            said.append(name)
            await leave.wait()
            said.append(f"{name} left")

    async def change() -> None:
        async with turnstile.changing():
            said.append("changes")
            await asyncio.sleep(0)
            said.append("changed")

    async with asyncio.TaskGroup() as group:
        for work in (read("a"), read("b"), change(), read("c")):
            group.create_task(work)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert said == ["a", "b"]
        leave.set()
    assert said == ["a", "b", "a left", "b left", "changes", "changed", "c", "c left"]


async def test_whoever_gives_up_keeps_nobody_waiting() -> None:
    turnstile = Turnstile()

    async def read_for_ever() -> None:
        async with turnstile.reading():
            await asyncio.Event().wait()

    async def change() -> str:
        async with turnstile.changing():
            return "changed"

    reader = asyncio.create_task(read_for_ever())
    await asyncio.sleep(0)
    impatient, patient = asyncio.create_task(change()), asyncio.create_task(change())
    await asyncio.sleep(0)
    impatient.cancel()
    reader.cancel()
    async with asyncio.timeout(5):
        assert await patient == "changed"
