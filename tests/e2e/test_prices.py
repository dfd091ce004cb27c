"""The whole server asks a price source for what pools can't tell, and serves one price everywhere."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from worth.price_server import Answer, price_server

from rtserver.demo.deployment import full_range
from rtserver.demo.lab import Lab
from rtserver.demo.ports import free_port
from rtserver.demo.server import await_ready, start_server, url_of
from rtserver.demo.settings_file import settings_toml
from rtserver.protocols.addresses import checksum


async def test_a_source_prices_what_pools_can_not(lab: Lab, tmp_path: Path) -> None:
    owner, uni = lab.owners[0], lab.deployment.tokens["UNI"]
    pool = lab.pool("UNI", "WETH", 3000)
    await lab.mint_now(owner, pool, *full_range(pool.tick_spacing))
    await lab.node.set_block_time(1.0)

    def answer(request: web.Request) -> bytes:
        asked = request.query["contract_addresses"].split(",")
        return orjson.dumps({token: {"usd": 7.25, "last_updated_at": int(time.time())} for token in asked})

    async with price_server() as source, aiohttp.ClientSession() as http:
        source.next(Answer(answer))
        settings = tmp_path / "rtserver.toml"
        text = settings_toml(lab.deployment, ws_url=lab.node.ws_url, http_url=lab.node.http_url)
        # Without a hop nobody but the source prices what has no pool against dollars.
        text = re.sub("(?m)^hops = .*$", "hops = []", text)
        text += f'\n[prices.coingecko]\nbase_url = "{source.url}"\nrequests_per_minute = 600\n'
        text += '[prices.coingecko.platforms]\n31337 = "local"\n'
        settings.write_text(text)
        port = free_port()
        server = start_server(settings, host="127.0.0.1", port=port, log=tmp_path / "server.log")
        try:
            url = url_of("127.0.0.1", port)
            await await_ready(server, url)
            await _get(http, f"{url}/api/v1/positions/summary?owner={owner}")
            async with asyncio.timeout(30):
                while True:
                    body = await _get(http, f"{url}/api/v1/prices?tokens={uni.address}")
                    shown = body["prices"][0]
                    if shown["priceUSD"] is not None:
                        break
                    await asyncio.sleep(0.2)
            assert (shown["token"], shown["source"]) == (checksum(uni.address), "coingecko")
            assert (shown["priceUSD"], shown["confidence"]) == ("7.25", None)
            # WETH has pools against dollars: they decide, the source that says 7.25 is in dispute with them.
            weth = (await _get(http, f"{url}/api/v1/prices?tokens={lab.deployment.weth}"))["prices"][0]
            assert (weth["source"], weth["disputed"], weth["others"]) == ("pools", True, {"coingecko": "7.25"})
            position = (await _get(http, f"{url}/api/v1/positions/summary?owner={owner}"))["positions"][0]
            assert position["valueUSD"] is not None
            assert source.asked[0].startswith("/simple/token_price/local?")
            # And how the source is doing, operators see.
            ready: dict[str, Any] = await _get(http, f"{url}/health/ready")
            (told,) = ready["prices"]["sources"]
            assert (told["source"], told["breaker"], told["errors"]) == ("coingecko", "closed", 0)
            assert told["requests"] >= 1
            assert ready["prices"]["chains"]["31337"]["disputed"] >= 1
            async with http.get(f"{url}/metrics") as response:
                assert 'rtserver_price_requests_total{outcome="ok",source="coingecko"}' in await response.text()
        finally:
            await server.end(timeout_s=5.0)


async def _get(http: aiohttp.ClientSession, url: str) -> dict[str, list[dict[str, object]]]:
    async with http.get(url) as response:
        assert response.status == 200, await response.text()
        body: dict[str, list[dict[str, object]]] = await response.json()
        return body
