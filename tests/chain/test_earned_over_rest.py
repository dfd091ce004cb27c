"""Rates and gains over REST on the real chain: what the books reckon is what the details say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rtserver.demo.lab import Lab
from rtserver.demo.ports import free_port
from rtserver.demo.server import await_ready, start_server, url_of
from rtserver.demo.settings_file import settings_toml

RATE = re.compile(r"^-?\d+\.\d%$")


@pytest.mark.parametrize("staked", [False, True])
async def test_an_hour_of_trades(lab: Lab, tmp_path: Path, staked: bool) -> None:
    owner, pool = lab.owners[0], lab.pool("WETH", "USDC", 500)
    tick = pool.align(lab.pool_state(pool).tick)
    token_id = await lab.mint_now(owner, pool, tick - 2_000, tick + 2_000)
    if staked:
        await lab.stake(token_id)
        await lab.mine()
    settings = tmp_path / "rtserver.toml"
    settings.write_text(settings_toml(lab.deployment, ws_url=lab.node.ws_url, http_url=lab.node.http_url))
    server = start_server(settings, host="127.0.0.1", port=(port := free_port()), log=tmp_path / "server.log")
    try:
        url = url_of("127.0.0.1", port)
        await await_ready(server, url)
        async with aiohttp.ClientSession() as http:

            async def get(path: str) -> dict[str, Any]:
                async with http.get(f"{url}/api/v1/positions/{path}") as response:
                    assert response.status == 200, await response.text()
                    body: dict[str, Any] = await response.json()
                    return body

            async def details() -> dict[str, Any]:
                """Return the details at the head."""
                while (body := await get(f"{token_id}/details"))["block"]["hash"] != lab.head.hash:
                    pass
                return body

            before = await details()
            for index in range(8):
                await lab.swap(pool, index % 2 == 0, 10**18 if index % 2 == 0 else 3_000 * 10**6)
                await lab.mine(timestamp=lab.head.timestamp + 600)
                await details()
            after = await details()
            assert before["apr"] is None
            assert RATE.match(after["apr"])
            assert after["aprs"]["1h"]["windowSeconds"] >= 3600
            assert after["poolApr"]["basis"] == "fullRange"
            assert after["pnl"]["deposits"]["amount0"] != "0"
            assert after["earned"]["fees0"] == after["fees"]["amount0"]
            paid = await lab.collectable(token_id) if not staked else None
            if paid is not None:
                assert (after["earned"]["fees0"], after["earned"]["fees1"]) == tuple(map(str, paid))
            summary = await get(f"summary?owner={owner}")
            (one,) = (each for each in summary["positions"] if each["tokenId"] == str(token_id))
            assert (one["apr"], one["earnedAmountUSD"]) == (after["apr"], after["earnedAmountUSD"])
            assert one["isStaked"] is staked
            if staked:
                (place,) = after["rewards"]["places"]
                assert after["rewards"]["usd"] == place["valueUSD"] is not None
    finally:
        await server.end(timeout_s=5.0)
