"""The socket on a real connection, with another implementation as the client."""

import asyncio
import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rtserver.domain.diff import Change
from rtserver.hub.limits import Limits
from rtserver.wire.codes import CloseCode

from .served import Json, Served, position, receive, served

ONE = "position:31337:uniswap-v3:1"


async def _send(socket: Any, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def _until_gone(server: Served) -> None:
    """Let the server notice that its clients have left; nothing else tells a test."""
    async with asyncio.timeout(10):
        while list(server.hub.sessions):
            await asyncio.sleep(0)


async def _closed(socket: Any) -> int:
    """Read until the end; return the close code."""
    try:
        while True:
            await socket.recv()
    except ConnectionClosed as closed:
        return 0 if closed.rcvd is None else int(closed.rcvd.code)


async def test_a_session_from_welcome_to_goodbye(server: Served) -> None:
    server.states[ONE] = {"1": position(1)}
    async with server.connect() as socket:
        (welcome,) = await receive(socket, "welcome")
        assert welcome["protocol"] == "rtserver.v1"
        assert welcome["heads"]["31337"]["number"] == 1
        await _send(socket, type="subscribe", id=1, channel=ONE)
        snapshot, subscribed = await receive(socket, "snapshot", "subscribed")
        assert (snapshot["id"], snapshot["state"]) == (1, {"1": position(1)})
        assert subscribed["how"] == "snapshot"
        server.mine(**{ONE: Change(patch={"1": {"valueUSD": "12.00"}})})
        (block,) = await receive(socket, "block")
        assert block["block"]["number"] == 2
        assert block["changes"][0]["patch"] == {"1": {"valueUSD": "12.00"}}
        await _send(socket, type="resync", id=2, channel=ONE, reason="test")
        (snapshot,) = await receive(socket, "snapshot")
        assert (snapshot["id"], snapshot["seq"]) == (2, 1)
        await _send(socket, type="unsubscribe", id="three", channel=ONE)
        (left,) = await receive(socket, "unsubscribed")
        assert left["id"] == "three"
    await _until_gone(server)


async def test_a_cursor_of_rest_goes_on_over_the_socket(server: Served) -> None:
    server.states[ONE] = {"1": position(1)}
    _, body = await server.get(f"/api/v1/snapshot?channel={ONE}")
    server.mine(**{ONE: Change(patch={"1": {"valueUSD": "12.00"}})})
    async with server.connect() as socket:
        await receive(socket, "welcome")
        await _send(socket, type="subscribe", channel=ONE, cursor=body["cursor"])
        block, subscribed = await receive(socket, "block", "subscribed")
        assert (block["changes"][0]["prev"], block["changes"][0]["seq"]) == (0, 1)
        assert subscribed["how"] == "resumed"


async def test_a_socket_of_one_position_is_subscribed_already(server: Served) -> None:
    server.states[ONE] = {"1": position(1)}
    async with server.connect("/ws/positions/1") as socket:
        _, snapshot, _ = await receive(socket, "welcome", "snapshot", "subscribed")
        assert snapshot["channel"] == ONE
        await _send(socket, type="unsubscribe", channel=ONE)
        await receive(socket, "unsubscribed")


@pytest.mark.parametrize("path", ["/ws/positions/abc", "/ws/positions/1?chainId=5"])
async def test_a_position_that_can_not_be_is_refused_before_the_handshake(server: Served, path: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with server.connect(path):
            pass
    assert caught.value.response.status_code == 400
    body = caught.value.response.body
    assert body is not None
    assert json.loads(body)["code"] == "bad_request"


async def test_plain_http_is_told_to_upgrade(server: Served) -> None:
    response, body = await server.get("/ws")
    assert response.status == 426
    assert response.headers["Upgrade"] == "websocket"
    assert "ws://" in body["detail"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("not json", "bad_request"),
        ("[]", "bad_request"),
        ('{"type":"dance"}', "bad_request"),
        ('{"type":"subscribe"}', "bad_request"),
        ('{"type":"subscribe","channel":"nothing:1"}', "bad_channel"),
        ('{"type":"subscribe","channel":"head:5"}', "bad_channel"),
        ('{"type":"unsubscribe","channel":"x"}', "bad_channel"),
        ('{"type":"resync","channel":"x"}', "bad_channel"),
        ('{"type":"auth","token":"t"}', "bad_request"),
    ],
)
async def test_rubbish_gets_an_error_and_the_session_goes_on(server: Served, text: str, code: str) -> None:
    async with server.connect() as socket:
        await receive(socket, "welcome")
        await socket.send(text)
        (error,) = await receive(socket, "error")
        assert error["code"] == code
        assert error["message"]
        server.states[ONE] = {}
        await _send(socket, type="subscribe", channel=ONE)
        await receive(socket, "snapshot", "subscribed")


async def test_an_error_names_the_request(server: Served) -> None:
    async with server.connect() as socket:
        await receive(socket, "welcome")
        await socket.send('{"type":"dance","id":17}')
        (error,) = await receive(socket, "error")
        assert error["id"] == 17


async def test_a_binary_frame_ends_the_session(server: Served) -> None:
    async with server.connect() as socket:
        await receive(socket, "welcome")
        await socket.send(b"\x00")
        assert await _closed(socket) == CloseCode.BAD_FRAME


async def test_a_frame_that_is_too_long_ends_the_session(server: Served) -> None:
    async with server.connect() as socket:
        await receive(socket, "welcome")
        await socket.send("x" * (16 * 1024 - 1))
        await receive(socket, "error")
        await socket.send("x" * (16 * 1024 + 1))
        assert await _closed(socket) in (CloseCode.BAD_FRAME, 1009)
    response, _ = await server.get("/health/live")
    assert response.status == 200


async def test_limits_of_one_client() -> None:
    async with served(limits=Limits(channels=1, burst=3, messages_per_s=0.001)) as server:
        server.mine()
        server.states[ONE] = {}
        async with server.connect() as socket:
            await receive(socket, "welcome")
            await _send(socket, type="subscribe", id=1, channel=ONE)
            await receive(socket, "snapshot", "subscribed")
            await _send(socket, type="subscribe", id=2, channel=ONE.replace(":1", ":2"))
            (error,) = await receive(socket, "error")
            assert (error["code"], error["id"]) == ("limit", 2)
            await _send(socket, type="pong")
            await _send(socket, type="subscribe", id=4, channel=ONE)
            (error,) = await receive(socket, "error")
            assert (error["code"], error["id"]) == ("rate", 4)
            assert error["retryAfterMs"] > 0
            # Going on all the same ends it.
            for _ in range(60):
                await _send(socket, type="pong")
            assert await _closed(socket) == CloseCode.RATE


async def test_connections_of_one_address() -> None:
    async with served(limits=Limits(connections_per_ip=2)) as server:
        server.mine()
        async with server.connect() as first, server.connect() as second:
            for socket in (first, second):
                await receive(socket, "welcome")
            async with server.connect() as third:
                assert await _closed(third) == CloseCode.TOO_MANY_CONNECTIONS
        await _until_gone(server)
        async with server.connect() as fourth:
            await receive(fourth, "welcome")


async def test_many_at_once_do_not_slip_past_the_limit() -> None:
    async with served(limits=Limits(connections_per_ip=3)) as server:
        server.mine()
        sockets = await asyncio.gather(*(server.connect() for _ in range(12)))

        async def greeting(socket: Any) -> Json | None:
            try:
                return dict(json.loads(await socket.recv()))
            except ConnectionClosed:
                return None

        greetings = await asyncio.gather(*map(greeting, sockets))
        assert sum(greeting is not None for greeting in greetings) == 3
        for socket in sockets:
            await socket.close()


async def test_no_pong_ends_the_session(server: Served) -> None:
    async with server.connect() as lazy, server.connect() as alive:
        for socket in (lazy, alive):
            await receive(socket, "welcome")
        server.now += 16
        server.hub.tick()
        await receive(lazy, "heartbeat")
        await receive(alive, "heartbeat")
        await _send(alive, type="pong")
        await _send(alive, type="unsubscribe", channel=ONE)
        await receive(alive, "unsubscribed")
        server.now += 11
        server.hub.tick()
        assert await _closed(lazy) == CloseCode.NO_PONG
        await _send(alive, type="unsubscribe", channel=ONE)
        await receive(alive, "unsubscribed")


async def test_shutting_down(server: Served) -> None:
    async with server.connect() as socket:
        await receive(socket, "welcome")
        server.sockets.is_draining = True
        server.hub.say_bye(CloseCode.SHUTDOWN, lambda: 1234)
        (bye,) = await receive(socket, "bye")
        assert bye == {"type": "bye", "code": 4001, "reconnect": True, "afterMs": 1234}
        assert await _closed(socket) == CloseCode.SHUTDOWN
        with pytest.raises(InvalidStatus) as caught:
            async with server.connect():
                pass
        assert caught.value.response.status_code == 503


async def test_origins_of_sockets_are_checked() -> None:
    async with served(origins=("https://good.example",)) as server:
        server.mine()
        async with server.connect(origin="https://good.example") as socket:
            await receive(socket, "welcome")
        with pytest.raises(InvalidStatus) as caught:
            async with server.connect(origin="https://evil.example"):
                pass
        assert caught.value.response.status_code == 403
