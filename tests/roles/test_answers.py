"""A gateway's REST says what a single process says, though it computes nothing and records nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market, MarketConfig
from rtserver.demo.showcase import mint_exhibits

from .processes import Deployed, Process, deployed


@pytest.fixture
async def world(lab: Lab, tmp_path: Path) -> AsyncIterator[Deployed]:
    """An engine with a store that two gateways may read, and a process that does it all on its own."""
    exhibits = await mint_exhibits(lab, seed=1)
    market = Market(lab, seed=1)
    await market.steps(10)
    async with deployed(lab, tmp_path, tmp_path / "store.sqlite3") as one:
        one.owner = exhibits[0].owner
        engine = one.start("engine")
        # The last setting counts.
        alone = tmp_path / "alone.toml"
        alone.write_text(one.settings.read_text().replace("store.sqlite3", "alone.sqlite3"))
        processes = [one.start("gateway"), one.start("gateway"), one.start("all", "--config", str(alone))]
        await engine.ready()
        await asyncio.gather(one.engine(), *(process.ready() for process in processes))
        yield one


async def told(process: Process, path: str) -> Any:
    async with ClientSession() as session, session.get(f"{process.url}/api/v1/{path}") as response:
        return response.status, await response.json()


async def of_the_head(world: Deployed, path: str) -> Any:
    """Wait until everyone says the same of the chain's head, and return it.

    That may take a moment: what tokens were worth then is found out when someone first looks.
    """
    deadline = asyncio.get_running_loop().time() + 60
    while True:
        answers = await asyncio.gather(*(told(process, path) for process in world.processes[1:]))
        bodies = [{name: value for name, value in body.items() if name != "ageMs"} for _, body in answers]
        is_there = all(status == 200 and body["block"]["hash"] == world.lab.head.hash for status, body in answers)
        if is_there and bodies[0] == bodies[1] == bodies[2]:
            return bodies[0]
        if is_there:
            # What is read of the past comes between two blocks, and into a gateway's answers with the next one.
            await world.lab.mine()
        assert asyncio.get_running_loop().time() < deadline, bodies
        await asyncio.sleep(0.05)


async def history_until_head(world: Deployed, token_id: str) -> list[Any]:
    """Return the past that everyone tells, once all of them know the head of it."""
    path = f"positions/{token_id}/history?window=1h&points=1000"
    async with asyncio.timeout(60):
        while True:
            answers = [await told(process, path) for process in world.processes[1:]]
            if all(
                status == 200 and body["points"] and body["points"][-1]["block"] == world.lab.head.number
                for status, body in answers
            ):
                return [body for _, body in answers]
            await asyncio.sleep(0.05)


async def test_a_gateway_tells_all_that_a_single_process_does(world: Deployed) -> None:
    """The same JSON: what positions earned, rates over windows, gains, and the past."""
    summary = f"positions/summary?owner={world.owner}"
    await world.lab.catch_up()
    # All of them follow the same positions from the same block on, and see each block after it.
    first = await of_the_head(world, summary)
    token_ids = [position["tokenId"] for position in first["positions"]]
    for token_id in token_ids:
        await of_the_head(world, f"positions/{token_id}/details")
    market = Market(world.lab, seed=2, config=MarketConfig(seconds_per_block=300))
    for _ in range(4):
        await market.step()
        first = await of_the_head(world, summary)
        assert all(position["earnedAmountUSD"] is not None for position in first["positions"])
    assert any(position["apr"] is not None for position in first["positions"])
    for token_id in token_ids:
        first = await of_the_head(world, f"positions/{token_id}/details")
        assert first["aprs"]["1h"]["windowSeconds"] >= 900
        assert first["earned"] is not None and first["pnl"] is not None and first["poolApr"] is not None
        first, second, alone = await history_until_head(world, token_id)
        assert first == second
        # How often a record was taken depends on each process's turns; what is now does not.
        assert first["points"][-1]["valueUSD"] == alone["points"][-1]["valueUSD"]
        assert len(first["points"]) > 1
    await a_crowd_costs_one_load(world)
    gateway = world.processes[1]
    assert (await told(gateway, "positions/999999/history"))[1]["points"] == []
    assert (await told(gateway, "positions/999999/details"))[0] == 404


async def a_crowd_costs_one_load(world: Deployed) -> None:
    """A hundred who ask at once at two gateways for what nobody has looked at."""
    engine, *gateways = world.processes[:3]
    owner = next(one for one in world.lab.owners if one != world.owner and world.lab.book.owned_by(one))
    token_id = world.lab.book.owned_by(owner)[0]
    before = await engine.metric("rtserver_answers_total", reason="asked")
    path = f"positions/{token_id}/details"
    answers = await asyncio.gather(*(told(gateways[index % 2], path) for index in range(100)))
    assert all(status == 200 and body["tokenId"] == str(token_id) for status, body in answers)
    assert all(body["earned"] is not None for _, body in answers)
    # Once, or once more where a busy machine took longer than a gateway waits before it repeats its ask.
    assert 1 <= await engine.metric("rtserver_answers_total", reason="asked") - before <= 3
