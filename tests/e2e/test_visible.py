"""What an operator sees of the endpoints of a running server: in its readiness and in its metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from .restarting import read_json
from .served import Served


async def endpoints_of(url: str) -> list[dict[str, Any]]:
    (chain,) = (await read_json(f"{url}/health/ready"))["chains"]
    endpoints: list[dict[str, Any]] = chain["endpoints"]
    return endpoints


async def test_every_endpoint_is_told_with_its_health(served: Served) -> None:
    node = served.lab.node
    async with asyncio.timeout(20):
        # The subscription is the socket's, the reads are HTTP's: both learn how high their node is.
        told = await endpoints_of(served.url)
        while any(one["head"] is None or one["p95Ms"] is None for one in told):
            await asyncio.sleep(0.1)
            told = await endpoints_of(served.url)
    assert {one["name"] for one in told} == {node.ws_url, node.http_url}
    for one in told:
        assert one["breaker"] == "closed"
        assert one["view"] in ("same", "unknown")
        assert 0 < one["p50Ms"] <= one["p95Ms"]
        assert one["errorRate"] == 0
        assert one["lastError"] is None
        assert one["successAgeMs"] >= 0
        assert one["restsMs"] == 0
        assert 0 <= one["inFlight"] <= one["maxInFlight"]
        assert one["callsPerS"] is None
        assert one["callsLeft"] is None
    async with aiohttp.ClientSession() as session, session.get(f"{served.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    of_endpoints = [line for line in lines if line.startswith("rtserver_endpoint_") and "_bucket" not in line]
    labels = f'{{chain="local",endpoint="{node.http_url}"}}'
    for name in (
        "breaker", "view", "head_number", "in_flight", "error_ratio", "success_age_seconds", "rests_seconds",
        "budget_calls", "calls_total", "seconds_count",
    ):  # fmt: skip
        assert any(line.startswith(f"rtserver_endpoint_{name}{labels}") for line in of_endpoints), name
    names = {line.split('endpoint="')[1].split('"')[0] for line in of_endpoints}
    assert names == {node.ws_url, node.http_url}, "one label value an endpoint, whatever happens"
    assert not any('chain="?"' in line for line in lines), "what was asked before the chain was known is of no chain"
