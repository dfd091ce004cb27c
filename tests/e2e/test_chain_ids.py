"""Endpoints are asked which chain they are of before anything is served from them."""

import asyncio

import pytest

from rtserver.app import run_server
from rtserver.config import load_settings
from rtserver.demo.node import AnvilNode
from rtserver.demo.toolchain import Toolchain
from rtserver.domain.errors import ConfigError
from rtserver.serving import Addresses


async def refused(**chain: object) -> str:
    """Return why the server does not start with this chain."""
    settings = load_settings(None, {"port": 0, "chains": [chain]})
    with pytest.raises(ConfigError) as caught:
        await run_server(settings, asyncio.Event())
    return str(caught.value)


async def test_an_endpoint_of_another_chain_is_refused(toolchain: Toolchain) -> None:
    async with AnvilNode(toolchain, chain_id=1) as one, AnvilNode(toolchain, chain_id=10) as ten:
        text = await refused(id=10, rpc=[one.ws_url, one.http_url])
        assert text == f"ws://127.0.0.1:{one.port} is an endpoint of chain 1, the settings say 10"
        text = await refused(rpc=[one.ws_url, ten.http_url])
        assert text == f"http://127.0.0.1:{ten.port} is an endpoint of chain 10, another endpoint says 1"


async def test_a_chain_that_is_not_known_needs_its_contracts(toolchain: Toolchain) -> None:
    async with AnvilNode(toolchain) as node:
        assert "chain 31337 is not known: name its contracts" in await refused(rpc=[node.ws_url])


@pytest.mark.parametrize("known", [1, 10, 56, 137, 8453, 42161])
async def test_known_chains_start_from_an_endpoint_alone(toolchain: Toolchain, known: int) -> None:
    async with AnvilNode(toolchain, chain_id=known) as node:
        stop, urls = asyncio.Event(), []

        def ready(addresses: Addresses) -> None:
            urls.append(addresses.url)
            stop.set()

        async with asyncio.timeout(10):
            await run_server(load_settings(None, {"port": 0}, [node.ws_url, node.http_url]), stop, ready)
        assert urls
