"""The past of a position from a real process: while it runs, and after it was killed and blocks left the chain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from rtserver.demo.deployment import full_range
from rtserver.demo.lab import Lab

from .restarting import Served, read_json, serving


async def history(served: Served, token_id: int, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the last hour once it is as it has to become; it may not be readable for a moment after the start."""
    url = f"{served.url}/api/v1/positions/{token_id}/history?window=1h&points=60"
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            async with session.get(url) as response:
                body: dict[str, Any] = await response.json()
                assert response.status == 200 or body["code"] == "chain_unavailable", body
            if response.status == 200 and until(body):
                return body
            await asyncio.sleep(0.05)


async def test_points_over_a_crash_and_a_reorganisation(lab: Lab, tmp_path: Path) -> None:
    await lab.mine()
    pool = lab.pool("WETH", "USDC", 500)
    token_id = await lab.mint_now(lab.owners[0], pool, *full_range(pool.tick_spacing))

    async def minutes(count: int) -> None:
        """Mine blocks of a minute with a trade in each, one after the other: each is evaluated."""
        for index in range(count):
            await lab.swap(pool, bool(index % 2), 10**18 if index % 2 else 3000 * 10**6)
            await lab.mine(timestamp=lab.head.timestamp + 60)
            async with asyncio.timeout(20):
                while await served.metric("rtserver_head_number") < lab.head.number:
                    await asyncio.sleep(0.02)

    async with serving(lab, tmp_path) as served:
        await served.start()
        async with served.client():
            await minutes(8)
            head = lab.head
            body = await history(served, token_id, lambda body: body["coveredSeconds"] >= 7 * 60)
            assert (body["window"], body["resolution"], body["inRangeShare"]) == ("1h", 60, "1")
            last = body["points"][-1]
            assert (last["timestamp"], last["block"]) == (head.timestamp, head.number)
            assert len({point["price"] for point in body["points"]}) > 5
            (chain,) = (await read_json(f"{served.url}/health/ready"))["chains"]
            assert chain["history"]["state"] == "writing"
            async with asyncio.timeout(30):
                while await served.metric("rtserver_history_rows_total") < 8:
                    await asyncio.sleep(0.05)
            await served.kept()
        await served.kill()
        before = {point["block"] for point in body["points"]}
        ancestor = lab.head.number - 4
        await lab.node.rpc("anvil_rollback", [4])
        await lab.catch_up()
        await lab.mine(6)
        await served.start()
        body = await history(served, token_id, lambda body: bool(body["points"]))
        found = {point["block"] for point in body["points"]}
        assert found - {lab.head.number} <= {block for block in before if block <= ancestor}
        assert found & before
        # Of a position that nobody ever watched nothing is known.
        body = await history(served, 424242, lambda body: True)
        assert (body["points"], body["coveredSeconds"], body["inRangeShare"]) == ([], 0, None)
