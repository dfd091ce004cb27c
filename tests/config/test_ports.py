"""The ports of a process: a second one for operators, and one that several processes share."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import ClientSession

from rtserver.config import Settings
from rtserver.domain.errors import ConfigError
from rtserver.edge.application import build_application
from rtserver.hub.hub import Hub
from rtserver.hub.limits import Limits
from rtserver.obs.metrics import Metrics
from rtserver.protocols.channels import Channel
from rtserver.serving import Addresses, bye_spread_ms, listening


class _Nobody:
    def want(self, channel: Channel) -> None:
        raise AssertionError(channel)

    def unwant(self, channel: Channel) -> None:
        raise AssertionError(channel)


def settings(**more: object) -> Settings:
    return Settings(role="gateway", redis={"url": "redis://127.0.0.1:1"}, port=0, **more)  # type: ignore[arg-type]


class _Server:
    """A process' application on the ports of its settings."""

    def __init__(self, chosen: Settings) -> None:
        self.metrics = Metrics()
        self.settings = chosen
        hub = Hub(_Nobody(), Limits(**chosen.limits.model_dump()), self.metrics)
        self.app, self.health, _ = build_application(hub, {}, chosen, self.metrics, "1.2.3")


async def get(url: str) -> tuple[int, str]:
    async with ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_without_a_port_for_operators_all_is_on_one() -> None:
    found: list[Addresses] = []
    server = _Server(settings())
    async with listening(server.app, server.settings, server.metrics, server.health, found.append) as url:
        assert found == [Addresses(url=url, ops_url=url)]
        assert (await get(f"{url}/metrics"))[0] == 200


async def test_with_one_metrics_are_there_alone_and_health_is_on_both() -> None:
    found: list[Addresses] = []
    server = _Server(settings(ops={"port": 0}, name="gateway-7"))
    async with listening(server.app, server.settings, server.metrics, server.health, found.append) as url:
        ops_url = found[0].ops_url
        assert ops_url != url
        assert (await get(f"{url}/metrics"))[0] == 404
        assert (await get(f"{ops_url}/metrics"))[0] == 200
        assert (await get(f"{ops_url}/api/v1/info"))[0] == 404
        for one in (url, ops_url):
            assert (await get(f"{one}/health/live"))[0] == 200
            status, text = await get(f"{one}/health/ready")
            assert status == 503, "no chain yet"
            assert '"name":"gateway-7","role":"gateway"' in text


async def test_a_taken_port_for_operators_is_told_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = _Server(settings(ops={"port": port}))
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} is in use.*RTSERVER_OPS__PORT"):
            async with listening(server.app, server.settings, server.metrics, server.health, None):
                raise AssertionError("not to be reached")


async def test_processes_that_say_so_share_a_port() -> None:
    first, second = _Server(settings(reuse_port=True)), _Server(settings(reuse_port=True))
    async with listening(first.app, first.settings, first.metrics, first.health, None) as url:
        port = int(url.rpartition(":")[2])
        second.settings = settings(reuse_port=True).model_copy(update={"port": port})
        async with listening(second.app, second.settings, second.metrics, second.health, None) as same:
            assert same == url
            assert (
                await asyncio.gather(*(get(f"{url}/health/live") for _ in range(4))) == [(200, '{"status":"live"}')] * 4
            )
        alone = _Server(settings().model_copy(update={"port": port}))
        with pytest.raises(ConfigError, match="is in use"):
            async with listening(alone.app, alone.settings, alone.metrics, alone.health, None):
                raise AssertionError("not to be reached")


@pytest.mark.parametrize(("clients", "ms"), [(0, 500), (3, 500), (2_000, 2_000), (125_000, 30_000)])
def test_clients_come_back_as_fast_as_they_are_taken_in(clients: int, ms: int) -> None:
    assert bye_spread_ms(clients) == ms
