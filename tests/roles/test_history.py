"""Who writes where several engines share a PostgreSQL: checkpoints, and the past that gateways tell of."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from aiohttp import ClientSession
from sqlalchemy import select
from store.postgres import open_postgres

from rtserver.client import RtClient
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market, MarketConfig
from rtserver.demo.showcase import mint_exhibits
from rtserver.domain.shards import shard_of
from rtserver.store.database import Database
from rtserver.store.tables import chains, minute_records

from .processes import Deployed, Process, deployed
from .test_roles import at_head

# Blocks so far apart that each has a record of all that changed.
BLOCK_S = 300


@asynccontextmanager
async def sharing(lab: Lab, folder: Path) -> AsyncIterator[tuple[Deployed, str]]:
    """A Redis, and a database that whatever is started uses; yield its URL, too."""
    await mint_exhibits(lab, seed=1)
    await Market(lab, seed=1).steps(5)
    async with open_postgres() as server:
        url = server.url(await server.new_database())
        file = folder / "store.sqlite3"
        async with deployed(lab, folder, file) as world:
            text = world.settings.read_text().replace(f'path = "{file}"', f'url = "{url}"\nevery_s = 0.1')
            world.settings.write_text(text)
            yield world, url


async def past_of(gateway: Process, token_id: str) -> tuple[int, dict[str, Any]]:
    path = f"{gateway.url}/api/v1/positions/{token_id}/history?window=2d&points=1000"
    async with ClientSession() as session, session.get(path) as response:
        return response.status, dict(await response.json())


async def told_until_head(world: Deployed, gateway: Process, token_id: str) -> dict[str, Any]:
    """Return what a gateway tells of a position's past, once it ends with the chain's head.

    An answer that an engine gave while it was busy is its block's, for half a minute: then the next block is asked for.
    """
    async with asyncio.timeout(60):
        while True:
            for _ in range(20):
                status, body = await past_of(gateway, token_id)
                if status == 200 and body["points"] and body["points"][-1]["block"] == world.lab.head.number:
                    return body
                await asyncio.sleep(0.05)
            await world.lab.mine()


async def until_state(engine: Process, state: str) -> None:
    async with asyncio.timeout(60):
        while (await engine.chain()).get("history", {}).get("state") != state:
            await asyncio.sleep(0.05)


async def rows(url: str) -> list[Any]:
    database = Database(url)
    async with database.reading() as connection:
        found = await connection.execute(select(minute_records).order_by(minute_records.c.at))
    await database.close()
    return list(found)


async def until_kept(world: Deployed, url: str, engine: Process) -> None:
    """Wait until an engine has kept the chain's head."""
    async with asyncio.timeout(60):
        while await engine.metric("rtserver_store_head_number") != world.lab.head.number:
            await asyncio.sleep(0.05)
    database = Database(url)
    async with database.reading() as connection:
        found = (await connection.execute(select(chains))).one()
    await database.close()
    assert orjson.loads(found.blocks)[-1] == [world.lab.head.number, world.lab.head.hash]


async def test_the_engine_in_charge_writes_and_the_next_one_goes_on(lab: Lab, tmp_path: Path) -> None:
    """One that is frozen is fenced when it wakes up. No second is missing after that, nor told twice."""
    async with sharing(lab, tmp_path) as (world, url):
        first = world.start("engine")
        await first.ready()
        assert await world.engine() is first
        standby, gateway = world.start("engine"), world.start("gateway")
        await asyncio.gather(standby.ready(), gateway.ready())
        market = Market(lab, seed=2, config=MarketConfig(seconds_per_block=BLOCK_S))
        owner = next(one for one in lab.owners if lab.book.owned_by(one))
        token_id = str(lab.book.owned_by(owner)[0])
        async with RtClient(gateway.ws_url) as client:
            await (await client.subscribe(f"owner:{lab.deployment.chain_id}:{owner}")).opened()

            async def blocks(*engines: Process) -> None:
                for _ in range(3):
                    await market.step()
                    await at_head(world, *engines)

            await blocks(first, standby)
            await told_until_head(world, gateway, token_id)
            await until_state(first, "writing")
            await until_state(standby, "standby")
            await until_kept(world, url, first)
            assert await standby.metric("rtserver_store_head_number") == 0
            first.freeze()
            assert await world.engine() is standby
            await blocks(standby)
            await until_state(standby, "writing")
            await until_kept(world, url, standby)
            first.thaw()
            await until_state(first, "standby")
            await blocks(first, standby)
            await until_kept(world, url, standby)
            told = await told_until_head(world, gateway, token_id)
            # And back, when the other one ends in order.
            await standby.child.end(timeout_s=10.0)
            assert await world.engine() is first
            await blocks(first)
            await until_kept(world, url, first)
            later = await told_until_head(world, gateway, token_id)
        assert later["coveredSeconds"] > told["coveredSeconds"] > 0
        assert len(later["points"]) > len(told["points"])
        found = [row for row in await rows(url) if row.token_id == token_id]
        assert found[0].covered_s == 0
        for before, after in itertools.pairwise(found):
            assert after.at - after.covered_s == before.at
        assert later["coveredSeconds"] == later["points"][-1]["timestamp"] - found[0].at


async def test_engines_that_share_a_chain_write_a_history_each(lab: Lab, tmp_path: Path) -> None:
    """And a gateway tells of each position what any of them has, also of one that two of them follow."""
    async with sharing(lab, tmp_path) as (world, url):
        engines = world.start("engine", "--shard", "0/2"), world.start("engine", "--shard", "1/2")
        gateway = world.start("gateway")
        await asyncio.gather(*(process.ready() for process in (*engines, gateway)))
        chain_id = lab.deployment.chain_id
        owners = {shard_of(f"owner:{chain_id}:{one}", 2): one for one in lab.owners if lab.book.owned_by(one)}
        assert owners.keys() == {0, 1}
        by_shard = {shard: lab.book.owned_by(owner)[0] for shard, owner in owners.items()}
        channels = [f"owner:{chain_id}:{owner}" for owner in owners.values()]
        # With the engine of its own name, and with that of its owner's.
        twice = next(
            (shard, token_id)
            for shard, owner in owners.items()
            for token_id in lab.book.owned_by(owner)
            if shard_of(f"position:{chain_id}:uniswap-v3:{token_id}", 2) != shard
        )
        channels.append(f"position:{chain_id}:uniswap-v3:{twice[1]}")
        market = Market(lab, seed=2, config=MarketConfig(seconds_per_block=BLOCK_S))
        async with RtClient(gateway.ws_url) as client:
            for channel in channels:
                await (await client.subscribe(channel)).opened()
            for _ in range(4):
                await market.step()
                await at_head(world, *engines)
            for engine in engines:
                await until_state(engine, "writing")
            for token_id in {*by_shard.values(), twice[1]}:
                told = await told_until_head(world, gateway, str(token_id))
                assert len(told["points"]) > 1
                assert told["coveredSeconds"] == told["points"][-1]["timestamp"] - told["points"][0]["timestamp"]
        await asyncio.gather(*(engine.child.end(timeout_s=10.0) for engine in engines))
        sources: dict[str, set[int]] = {}
        for row in await rows(url):
            sources.setdefault(row.token_id, set()).add(row.source)
        assert len(sources[str(twice[1])]) == 2
        assert sources[str(by_shard[0])] | sources[str(by_shard[1])] == sources[str(twice[1])]
