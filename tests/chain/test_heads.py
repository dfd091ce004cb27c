"""Headers as different chains announce them, from a scripted node: no public chain can be had in a test."""

import json
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
