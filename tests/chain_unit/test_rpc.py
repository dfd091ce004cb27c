"""Endpoints against a scripted node: answers in any order, errors as errors, never a key in a message."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from rtserver.chain.rpc import Endpoint, HttpEndpoint, RpcError, TransportError, WsEndpoint, endpoint_name, node_of

from .scripted_node import Refusal, ScriptedNode, scripted_node


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with scripted_node() as served:
        served.methods["echo"] = lambda value: value
        yield served


@pytest.fixture(params=["http", "ws"])
async def endpoint(request: pytest.FixtureRequest, node: ScriptedNode) -> AsyncIterator[Endpoint]:
    made: Endpoint = (
        HttpEndpoint(node.http, timeout_s=5) if request.param == "http" else WsEndpoint(node.ws, timeout_s=5)
    )
    yield made
    await made.close()


def test_names_hold_no_secret() -> None:
    assert endpoint_name("wss://user:pass@eth.example/v3/0123456789abcdef0123?key=1") == "wss://eth.example"
    assert endpoint_name("https://eth.example/short") == "https://eth.example", "keys may be short"
    assert endpoint_name("http://127.0.0.1:8545") == "http://127.0.0.1:8545"
    assert endpoint_name("http://[::1]:8545/") == "http://[::1]:8545"


def test_two_endpoints_of_one_node_have_its_host_and_port_in_common() -> None:
    assert node_of("ws://[::1]:8545/key") == node_of("http://user@[::1]:8545") == "[::1]:8545"
    assert node_of("wss://eth.example/v3/key") == node_of("https://eth.example/v2") == "eth.example"
    assert node_of("http://eth.example:1") != node_of("http://eth.example:2")


async def test_one_request_is_no_batch(node: ScriptedNode, endpoint: Endpoint) -> None:
    assert await endpoint.send([("echo", [7])]) == [7]
    assert node.requests == [["echo"]]


async def test_a_batch_is_one_message_and_answers_are_put_in_order(node: ScriptedNode, endpoint: Endpoint) -> None:
    assert await endpoint.send([("echo", [index]) for index in range(20)]) == list(range(20))
    assert len(node.requests) == 1


async def test_requests_at_the_same_time_do_not_mix(endpoint: Endpoint) -> None:
    batches = [[("echo", [f"{name}{index}"]) for index in range(3)] for name in "abcdef"]
    answers = await asyncio.gather(*(endpoint.send(batch) for batch in batches))
    assert answers == [[f"{name}{index}" for index in range(3)] for name in "abcdef"]


async def test_a_refusal_stands_in_its_place(node: ScriptedNode, endpoint: Endpoint) -> None:
    def refuse() -> None:
        raise Refusal(3, "execution reverted", "0x1234")

    node.methods["refuse"] = refuse
    first, second = await endpoint.send([("echo", [1]), ("refuse", [])])
    assert first == 1
    assert isinstance(second, RpcError)
    assert (second.code, second.message, second.data) == (3, "execution reverted", "0x1234")
    (alone,) = await endpoint.send([("unknown", [])])
    assert isinstance(alone, RpcError)


async def test_silence_ends_in_time(node: ScriptedNode) -> None:
    node.is_silent = True
    for impatient in (HttpEndpoint(node.http, timeout_s=0.05), WsEndpoint(node.ws, timeout_s=0.05)):
        with pytest.raises(TransportError, match="TimeoutError"):
            await impatient.send([("echo", [1])])
        await impatient.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (502, b"bad gateway"), (429, b'{"error":"slow down"}'), (500, b"[]"), (200, b"7"), (200, b"")],
)
async def test_what_is_no_answer_is_the_transport_s_fault(node: ScriptedNode, status: int, body: bytes) -> None:
    endpoint = HttpEndpoint(node.http, timeout_s=5)
    node.raw.append((status, body))
    with pytest.raises(TransportError) as caught:
        await endpoint.send([("echo", [1])])
    assert "secret" not in str(caught.value)
    assert await endpoint.send([("echo", [2])]) == [2]
    await endpoint.close()


async def test_an_http_node_without_batches_is_asked_one_by_one(node: ScriptedNode) -> None:
    node.takes_batches = False
    endpoint = HttpEndpoint(node.http, timeout_s=5)
    assert await endpoint.send([("echo", [1]), ("echo", [2])]) == [1, 2]
    assert await endpoint.send([("echo", [3]), ("echo", [4])]) == [3, 4]
    assert [len(request) for request in node.requests] == [2, 1, 1, 1, 1]
    await endpoint.close()


async def test_a_lost_socket_fails_what_waits_and_opens_again(node: ScriptedNode) -> None:
    endpoint = WsEndpoint(node.ws, timeout_s=5)
    node.is_silent = True
    waiting = asyncio.ensure_future(endpoint.send([("echo", [1])]))
    await node.was_asked.wait()
    await node.hang_up()
    with pytest.raises(TransportError):
        await waiting
    node.is_silent = False
    assert await endpoint.send([("echo", [2])]) == [2]
    await endpoint.close()
    await endpoint.close()


async def test_a_socket_that_is_lost_while_it_is_written_to_leaves_no_unread_error(
    node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = WsEndpoint(node.ws, timeout_s=5)
    await endpoint.send([("echo", [1])])
    socket, reader = endpoint._socket, endpoint._reader
    assert socket is not None and reader is not None
    send = socket.send

    async def send_too_late(text: str) -> None:
        await node.hang_up()
        await asyncio.wait({reader})
        await send(text)

    monkeypatch.setattr(socket, "send", send_too_late)
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        with pytest.raises(TransportError):
            await endpoint.send([("echo", [2])])
        gc.collect()
        assert not complaints
    finally:
        loop.set_exception_handler(None)
        await endpoint.close()


async def test_nobody_there() -> None:
    for endpoint in (HttpEndpoint("http://127.0.0.1:9", timeout_s=5), WsEndpoint("ws://127.0.0.1:9", timeout_s=5)):
        with pytest.raises(TransportError, match=r"127\.0\.0\.1:9"):
            await endpoint.send([("echo", [1])])
        await endpoint.close()


@pytest.mark.parametrize(
    "message",
    ["header not found", "Unknown block", "block not found: 0xab", "missing trie node 0x1",
     "BlockOutOfRangeError: block height is 3 but requested was 9"],
)  # fmt: skip
def test_a_node_that_does_not_have_the_block_is_understood(message: str) -> None:
    assert RpcError(-32000, message).is_unknown_block
    assert not RpcError(3, "execution reverted").is_unknown_block
