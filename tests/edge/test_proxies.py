"""Behind a trusted proxy each client has its own limits; whoever is not trusted can't choose whose they are."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from rtserver.edge.proxies import Proxies
from rtserver.hub.limits import Limits

from .raw import HANDSHAKE, exchange
from .served import receive, served


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7", "10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", ["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7:5123"], "192.0.2.7"),
        ("10.0.0.1", ["[2001:db8::7]:5123"], "2001:db8::7"),
        ("10.0.0.1", ['"2001:db8::7"'], "2001:db8::7"),
        ("10.0.0.1", ["::ffff:192.0.2.7"], "192.0.2.7"),
        ("::ffff:10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["192.0.2.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1," + "10.0.0.2," * 15 + "10.0.0.9"], "10.0.0.2"),
        ("172.16.0.1", ["192.0.2.7"], "172.16.0.1"),
        ("2001:db8:1::5", ["192.0.2.7"], "192.0.2.7"),
    ],
)
def test_whose_request_it_is(peer: str, forwarded: list[str], client: str) -> None:
    proxies = Proxies(["10.0.0.0/8", "2001:db8:1::/48"])
    request = make_mocked_request("GET", "/", headers=[("X-Forwarded-For", value) for value in forwarded])
    assert proxies.seen_through(request.clone(remote=peer)).remote == client


def test_no_one_is_trusted_unless_named() -> None:
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    request = make_mocked_request("GET", "/", headers=headers).clone(remote="127.0.0.1")
    seen = Proxies().seen_through(request)
    assert (seen.remote, seen.secure) == ("127.0.0.1", False)
    seen = Proxies(["127.0.0.1"]).seen_through(request)
    assert (seen.remote, seen.secure) == ("192.0.2.7", True)


async def test_sockets_of_each_client_behind_a_proxy_are_counted_apart() -> None:
    async with served(limits=Limits(connections_per_minute=1), trusted=("127.0.0.1",)) as server:
        server.mine()

        async def knock(client: bytes) -> int:
            text = HANDSHAKE.replace(b"Host: x", b"Host: x\r\nX-Forwarded-For: " + client)
            return (await exchange(server.port, text)).status

        assert [await knock(client) for client in (b"192.0.2.1", b"192.0.2.1", b"192.0.2.2")] == [101, 429, 101]
        async with server.connect(additional_headers={"X-Forwarded-For": "192.0.2.3"}) as socket:
            await receive(socket, "welcome")


async def test_a_made_up_address_opens_no_second_door() -> None:
    async with served(limits=Limits(connections_per_minute=1)) as server:
        statuses = []
        for client in (b"192.0.2.1", b"192.0.2.2"):
            text = HANDSHAKE.replace(b"Host: x", b"Host: x\r\nX-Forwarded-For: " + client)
            statuses.append((await exchange(server.port, text)).status)
        assert statuses == [101, 429]
