"""What people and operators see while the node is away: the last state with its age, and why it is not ready."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from .served import Served


async def until(session: aiohttp.ClientSession, url: str, status: int) -> dict[str, Any]:
    """Ask until the answer has this status; return its body."""
    async with asyncio.timeout(20):
        while True:
            async with session.get(url) as response:
                if response.status == status:
                    return dict(await response.json())
            await asyncio.sleep(0.1)


async def test_the_last_state_is_served_with_its_age(served: Served) -> None:
    owner = served.lab.owners[0]
    summary = f"{served.url}/api/v1/positions/summary?owner={owner}"
    async with aiohttp.ClientSession() as session:
        before = await until(session, summary, 200)
        assert before["positions"]
        served.lab.node.freeze()
        try:
            report = await until(session, f"{served.url}/health/ready", 503)
            (chain,) = report["chains"]
            assert "no new head for" in chain["reason"]
            async with session.get(summary) as response:
                away = await response.json()
                assert response.status == 200
                assert int(response.headers["Age"]) == away["ageMs"] // 1000 >= 3
            assert len(away["positions"]) == len(before["positions"])
            stranger = "0x" + "77" * 20
            async with session.get(f"{served.url}/api/v1/positions/summary?owner={stranger}") as response:
                problem = await response.json()
                assert (response.status, problem["code"]) == (503, "load_timeout")
                assert response.content_type == "application/problem+json"
        finally:
            served.lab.node.thaw()
        await until(session, f"{served.url}/health/ready", 200)
        later = await until(session, summary, 200)
        assert later["block"]["number"] > away["block"]["number"]
        assert later["ageMs"] < 3000


@pytest.mark.parametrize("path", ["/api/v1/positions/999999999/details", "/api/v1/nothing"])
async def test_what_is_not_there_is_a_problem_not_a_page(served: Served, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(served.url + path) as response:
        assert response.status == 404
        assert (await response.json())["status"] == 404
