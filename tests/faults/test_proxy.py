"""The fault proxy itself: without a rule it is not there, and each fault is what its name says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest

from rtserver.demo.node import AnvilNode
from rtserver.demo.toolchain import Toolchain

from .actions import (
    Action,
    Answer,
    CutOff,
    Delay,
    Disconnect,
    Drop,
    Duplicate,
    Edit,
    Elsewhere,
    LogCap,
    Reorder,
    Truncate,
    WrongId,
    busy,
)
from .proxy import FaultProxy


@pytest.fixture
async def plain(toolchain: Toolchain) -> AsyncIterator[AnvilNode]:
    async with AnvilNode(toolchain) as node:
        yield node


@pytest.fixture
async def proxy(plain: AnvilNode) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(plain.http_url, plain.ws_url) as started:
        yield started


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


def ask(method: str, *params: object, number: int = 1) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


async def post(client: aiohttp.ClientSession, proxy: FaultProxy, body: bytes) -> tuple[int, bytes]:
    async with client.post(proxy.http_url + "/some/path", data=body) as response:
        return response.status, await response.read()


async def test_without_rules_it_is_the_node(client: aiohttp.ClientSession, proxy: FaultProxy, plain: AnvilNode) -> None:
    batch = b"[" + ask("eth_chainId", number=1) + b"," + ask("eth_blockNumber", number=2) + b"]"
    status, body = await post(client, proxy, batch)
    assert status == 200
    assert [one["result"] for one in orjson.loads(body)] == ["0x7a69", "0x0"]
    async with client.ws_connect(proxy.ws_url) as socket:
        await socket.send_str(ask("eth_subscribe", "newHeads").decode())
        assert (await socket.receive_json())["id"] == 1
        await plain.rpc("evm_mine")
        assert (await socket.receive_json())["params"]["result"]["number"] == "0x1"
        await socket.send_str(ask("eth_blockNumber").decode())
        assert (await socket.receive_json())["result"] == "0x1"
    assert proxy.methods["eth_blockNumber"] == 2
    assert proxy.calls[0].batch == 2


@pytest.mark.parametrize("action", [Disconnect(), CutOff()], ids=str)
async def test_connections_break(client: aiohttp.ClientSession, proxy: FaultProxy, action: Action) -> None:
    proxy.add(action, times=1)
    with pytest.raises(aiohttp.ClientError):
        await post(client, proxy, ask("eth_chainId"))
    assert (await post(client, proxy, ask("eth_chainId")))[0] == 200
    proxy.add(action, times=1)
    async with client.ws_connect(proxy.ws_url) as socket:
        await socket.send_str(ask("eth_chainId").decode())
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


async def test_answers_are_replaced(client: aiohttp.ClientSession, proxy: FaultProxy) -> None:
    proxy.add(busy(7), times=1)
    async with client.post(proxy.http_url, data=ask("eth_chainId")) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "7")
    rule = proxy.add(Answer(-32000, "header not found"), "eth_call")
    _, body = await post(
        client, proxy, b"[" + ask("eth_call", {}, "latest") + b"," + ask("eth_chainId", number=2) + b"]"
    )
    refused, fine = orjson.loads(body)
    assert (refused["id"], refused["error"]["message"], fine["result"]) == (1, "header not found", "0x7a69")
    assert rule.hits == 1
    rule.remove()
    proxy.add(Truncate(), times=1)
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads((await post(client, proxy, ask("eth_chainId")))[1])
    proxy.add(WrongId(5), times=1)
    assert orjson.loads((await post(client, proxy, ask("eth_chainId")))[1])["id"] == 6
    proxy.add(Edit(lambda result: result + "0"), times=1)
    assert orjson.loads((await post(client, proxy, ask("eth_chainId")))[1])["result"] == "0x7a690"


async def test_what_is_dropped_hangs_until_the_client_leaves(client: aiohttp.ClientSession, proxy: FaultProxy) -> None:
    proxy.add(Drop(), times=1)
    lost = asyncio.ensure_future(post(client, proxy, ask("eth_chainId")))
    await proxy.asked("eth_chainId")
    assert (await post(client, proxy, ask("eth_blockNumber")))[0] == 200
    lost.cancel()
    await asyncio.wait({lost})
    async with asyncio.timeout(5):
        while proxy.cancelled < 1:
            await asyncio.sleep(0.01)


async def test_a_frozen_proxy_answers_not_even_pings(client: aiohttp.ClientSession, proxy: FaultProxy) -> None:
    async with client.ws_connect(proxy.ws_url, autoping=False) as socket:
        proxy.freeze()
        await socket.ping(b"x")
        asked = asyncio.ensure_future(post(client, proxy, ask("eth_chainId")))
        opened = asyncio.ensure_future(client.ws_connect(proxy.ws_url))
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.2)
        assert not asked.done() and not opened.done()
        proxy.thaw()
        assert (await socket.receive()).type is aiohttp.WSMsgType.PONG
        assert (await asked)[0] == 200
        await (await opened).close()


async def test_pushes_are_doubled_held_back_dropped_and_made_up(
    client: aiohttp.ClientSession, proxy: FaultProxy, plain: AnvilNode
) -> None:
    async with client.ws_connect(proxy.ws_url) as socket:

        async def told() -> str:
            return str((await socket.receive_json(timeout=5))["params"]["result"]["number"])

        await socket.send_str(ask("eth_subscribe", "newHeads").decode())
        await socket.receive_json()
        proxy.add(Duplicate(), "eth_subscription", times=1)
        await plain.rpc("evm_mine")
        assert [await told(), await told()] == ["0x1", "0x1"]
        proxy.add(Reorder(), "eth_subscription", times=1)
        await plain.rpc("anvil_mine", ["0x2"])
        assert [await told(), await told()] == ["0x3", "0x2"]
        proxy.add(Drop(), "eth_subscription", times=1)
        await plain.rpc("anvil_mine", ["0x2"])
        assert await told() == "0x5"
        proxy.add(Delay(0.05), "eth_subscription", times=1)
        await plain.rpc("anvil_mine", ["0x2"])
        assert [await told(), await told()] == ["0x6", "0x7"]
        assert await proxy.announce({"number": "0x99"}) == 1
        assert await told() == "0x99"


async def test_down_refuses_and_up_is_the_same_port(client: aiohttp.ClientSession, proxy: FaultProxy) -> None:
    url = proxy.http_url
    # A kept-alive connection must not outlive it either.
    await post(client, proxy, ask("eth_chainId"))
    async with client.ws_connect(proxy.ws_url) as socket:
        await proxy.down()
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        with pytest.raises(aiohttp.ClientError):
            await post(client, proxy, ask("eth_chainId"))
    await proxy.up()
    assert proxy.http_url == url
    assert (await post(client, proxy, ask("eth_chainId")))[0] == 200


async def test_a_node_that_dies_takes_its_sockets_with_it(
    client: aiohttp.ClientSession, proxy: FaultProxy, plain: AnvilNode
) -> None:
    async with client.ws_connect(proxy.ws_url) as socket:
        await socket.send_str(ask("eth_subscribe", "newHeads").decode())
        await socket.receive_json()
        await plain.kill()
        assert (await socket.receive(timeout=5)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    with pytest.raises(aiohttp.ClientError):
        await post(client, proxy, ask("eth_chainId"))


async def test_another_fork_answers(
    client: aiohttp.ClientSession, proxy: FaultProxy, plain: AnvilNode, toolchain: Toolchain
) -> None:
    async with AnvilNode(toolchain) as other:
        await other.rpc("anvil_mine", ["0x9"])
        rule = proxy.add(Elsewhere(other.http_url), "eth_blockNumber")
        assert orjson.loads((await post(client, proxy, ask("eth_blockNumber")))[1])["result"] == "0x9"
        rule.remove()
        assert orjson.loads((await post(client, proxy, ask("eth_blockNumber")))[1])["result"] == "0x0"
        proxy.switch(other.http_url, other.ws_url)
        assert orjson.loads((await post(client, proxy, ask("eth_blockNumber")))[1])["result"] == "0x9"


async def test_ranges_of_logs_are_capped(client: aiohttp.ClientSession, proxy: FaultProxy) -> None:
    proxy.add(LogCap(max_blocks=10, wide="try [{first}, {last}]"))
    query = {"fromBlock": "0x0", "toBlock": "0xa"}
    answer = orjson.loads((await post(client, proxy, ask("eth_getLogs", query)))[1])
    assert answer["error"] == {"code": -32005, "message": "try [0x0, 0x5]"}
    answer = orjson.loads((await post(client, proxy, ask("eth_getLogs", {**query, "toBlock": "0x0"})))[1])
    assert answer["result"] == []
