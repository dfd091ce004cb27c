"""Headers as different chains announce them, from a scripted node: no public chain can be had in a test."""

import asyncio
import json
import time
from contextlib import aclosing, suppress
from typing import Any

import pytest
import websockets

from rtserver.chain.decode import MalformedAnswer
from rtserver.chain.heads import stream_heads
from rtserver.chain.rpc import TransportError
from rtserver.domain.chain import Header

BARE = {"number": "0x10", "hash": "0x" + "ab" * 32, "parentHash": "0x" + "cd" * 32, "timestamp": "0x65"}
FULL = {
    **BARE,
    "logsBloom": "0x" + "00" * 255 + "01",
    "extraData": "0x",
    "gasLimit": "0x1c9c380",
    "gasUsed": "0x0",
    "miner": "0x" + "00" * 20,
    "mixHash": "0x" + "00" * 32,
    "nonce": "0x0000000000000000",
    "receiptsRoot": "0x" + "00" * 32,
    "sha3Uncles": "0x" + "00" * 32,
    "stateRoot": "0x" + "00" * 32,
    "transactionsRoot": "0x" + "00" * 32,
    "baseFeePerGas": "0x7",
    "withdrawalsRoot": None,
    "totalDifficulty": None,
}


async def heads_of(*headers: dict[str, Any]) -> list[Header]:
    """Return what comes out of a subscription to a node that announces these headers and then ends."""

    async def node(socket: websockets.ServerConnection) -> None:
        async for text in socket:
            request = json.loads(text)
            await socket.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": "0x1"}))
            if request["method"] == "eth_subscribe":
                for header in headers:
                    params = {"subscription": "0x1", "result": header}
                    await socket.send(json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params}))
                await socket.close()

    opened: list[bool] = []
    seen: list[Header] = []

    async def collect(port: int) -> None:
        async for header in stream_heads(f"ws://127.0.0.1:{port}", 5.0, lambda: opened.append(True)):
            seen.append(header)  # noqa: PERF401 - kept until the stream breaks off

    async with websockets.serve(node, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(TransportError):
            await collect(port)
    assert opened == [True]
    return seen


@pytest.mark.parametrize(
    "header",
    [
        FULL,
        pytest.param({**FULL, "extraData": "0x" + "11" * 97}, id="bnb-polygon"),
        pytest.param({**FULL, "l1BlockNumber": "0x5", "sendCount": "0x1", "sendRoot": "0x" + "22" * 32}, id="arbitrum"),
        pytest.param({**FULL, "milliTimestamp": "0x19a", "requestsHash": "0x" + "33" * 32}, id="extra-fields"),
    ],
)
async def test_headers_of_all_chains_are_taken(header: dict[str, Any]) -> None:
    (seen,) = await heads_of(header)
    assert (seen.number, seen.hash, seen.parent_hash) == (16, BARE["hash"], BARE["parentHash"])
    assert (seen.timestamp, seen.logs_bloom) == (0x65, 1)


async def test_a_header_without_a_bloom_excludes_nothing() -> None:
    (seen,) = await heads_of(BARE)
    assert seen.logs_bloom == (1 << 2048) - 1


async def test_a_header_that_is_none_ends_the_subscription_as_a_transport_error() -> None:
    with pytest.raises(MalformedAnswer, match="header"):
        await heads_of({"number": "0x10"})


async def test_a_node_that_does_not_answer_costs_no_cpu_and_no_patience_at_the_end() -> None:
    """web3's own way of waiting turns the event loop until the answer is there: a core for nothing."""
    asked = asyncio.Event()

    async def node(socket: websockets.ServerConnection) -> None:
        async for text in socket:
            assert isinstance(text, str), "JSON is text"
            asked.set()
            await socket.wait_closed()

    async def listen(url: str) -> None:
        async with aclosing(stream_heads(url, 30.0, lambda: None)) as heads:
            async for _ in heads:
                raise AssertionError("nothing was announced")

    async with websockets.serve(node, "127.0.0.1", 0, close_timeout=0.1) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        listening = asyncio.create_task(listen(f"ws://127.0.0.1:{port}"))
        await asked.wait()
        began, turns = time.process_time(), 0
        until = asyncio.get_running_loop().time() + 1.0
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.05)
            turns += 1
        # A spinning wait takes all of the second; ours takes what these twenty wake-ups take.
        assert time.process_time() - began < 0.5
        assert turns > 5
        listening.cancel()
        async with asyncio.timeout(10):
            with suppress(asyncio.CancelledError):
                await listening


async def test_an_answer_that_is_not_ours_ends_the_attempt() -> None:
    async def node(socket: websockets.ServerConnection) -> None:
        async for text in socket:
            wrong = {"jsonrpc": "2.0", "id": json.loads(text)["id"] + 1000, "result": "0x1"}
            await socket.send(json.dumps(wrong))

    async with websockets.serve(node, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        heads = stream_heads(f"ws://127.0.0.1:{port}", 30.0, lambda: None)
        with pytest.raises(TransportError):
            await anext(heads)
