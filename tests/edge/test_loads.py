"""What an address may have read from the node: one account for its requests and all its sockets."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

from websockets.asyncio.client import ClientConnection

from rtserver.hub.limits import Limits

from .raw import HANDSHAKE, exchange
from .served import OWNER, Served, receive, served

LOAD = "/api/v1/snapshot?channel=position:31337:uniswap-v3:{}"


async def _ask(server: Served, token_id: int, client: str) -> int:
    response, _ = await server.get(LOAD.format(token_id), X_Forwarded_For=client)
    return response.status


async def _subscribe(socket: ClientConnection, channel: str, kind: str = "subscribe") -> None:
    await socket.send(json.dumps({"type": kind, "id": channel, "channel": channel}))


async def test_channels_that_cost_a_read_have_a_rate() -> None:
    """Each costs calls to the node, which may cost money: no one address may have as many as it likes."""
    async with served(limits=Limits(loads_per_minute=2), trusted=("127.0.0.1",)) as server:
        server.mine()
        for token_id in range(5):
            server.states[f"position:31337:uniswap-v3:{token_id}"] = {}
        assert [await _ask(server, token_id, "192.0.2.1") for token_id in (0, 1, 2)] == [200, 200, 429]
        assert await _ask(server, 0, "192.0.2.1") == 200, "what is open costs nothing"
        assert await _ask(server, 3, "192.0.2.2") == 200
        response, body = await server.get(LOAD.format(4), X_Forwarded_For="192.0.2.1")
        assert (response.status, body["code"]) == (429, "rate")
        assert 0 < int(response.headers["Retry-After"]) <= 31
        assert "position:31337:uniswap-v3:4" not in server.wanted
        # The owners that the page offers are the server's own.
        server.states[f"owner:31337:{OWNER}"] = {}
        response, body = await server.get("/api/v1/owners", X_Forwarded_For="192.0.2.1")
        assert body["owners"] == [{"owner": OWNER, "positions": 0}]


async def test_sockets_and_rest_of_an_address_share_one_account() -> None:
    """Many sockets are no way around it."""
    async with served(limits=Limits(loads_per_minute=3), trusted=("127.0.0.1",)) as server:
        server.mine()
        names = [f"position:31337:uniswap-v3:{token_id}" for token_id in range(8)]
        server.states.update({name: {} for name in names})

        async def socket_of(client: str) -> ClientConnection:
            socket = await stack.enter_async_context(server.connect(additional_headers={"X-Forwarded-For": client}))
            await receive(socket, "welcome")
            return socket

        async with AsyncExitStack() as stack:
            one, two, other = [await socket_of(client) for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2")]
            assert await _ask(server, 0, "192.0.2.1") == 200
            await _subscribe(one, names[1])
            await receive(one, "snapshot", "subscribed")
            await _subscribe(two, names[2])
            await receive(two, "snapshot", "subscribed")
            for socket, kind in ((one, "subscribe"), (two, "resync")):
                await _subscribe(socket, names[3], kind)
                (error,) = await receive(socket, "error")
                assert (error["id"], error["code"]) == (names[3], "rate")
                assert 0 < error["retryAfterMs"] <= 21_000
            assert names[3] not in server.wanted
            assert await _ask(server, 3, "192.0.2.1") == 429
            for name in names[:3]:
                await _subscribe(one, name)
                await receive(one, "snapshot", "subscribed")
            await _subscribe(other, names[4])
            await receive(other, "snapshot", "subscribed")


async def test_a_socket_of_one_position_is_on_the_account_too() -> None:
    async with served(limits=Limits(loads_per_minute=1), trusted=("127.0.0.1",)) as server:
        server.mine()
        server.states.update({f"position:31337:uniswap-v3:{token_id}": {} for token_id in range(3)})
        statuses = []
        for token_id, client in ((0, b"192.0.2.1"), (1, b"192.0.2.1"), (0, b"192.0.2.1"), (1, b"192.0.2.2")):
            text = HANDSHAKE.replace(b"/ws", b"/ws/positions/%d" % token_id)
            text = text.replace(b"Host: x", b"Host: x\r\nX-Forwarded-For: " + client)
            reply = await exchange(server.port, text)
            statuses.append(reply.status)
            assert reply.status == 101 or int(reply.headers["retry-after"]) > 0
        assert statuses == [101, 429, 101, 101]


async def test_a_channel_that_is_on_its_way_costs_once() -> None:
    async with served(limits=Limits(loads_per_minute=1)) as server:
        server.mine()
        name = "position:31337:uniswap-v3:7"
        async with server.connect() as one, server.connect() as two:
            for socket in (one, two):
                await receive(socket, "welcome")
                await _subscribe(socket, name)
            await _subscribe(two, "rubbish")
            (error,) = await receive(two, "error")
            assert error["code"] == "bad_channel", "and the one before it waits"
            assert server.wanted == [name]
