"""`verify` end to end on a real chain: silent about a server that is right, loud about every kind of lie."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from client.messages import block_frame, block_json
from client.scripted import Peer, ScriptedServer
from eth_utils.address import to_checksum_address
from rich.console import Console
from websockets.exceptions import ConnectionClosed

from rtserver.chain.rpc import HttpEndpoint
from rtserver.demo.lab import Lab
from rtserver.domain.diff import State
from rtserver.tools.deployment import fetch_deployment
from rtserver.tools.verify import run_verify

from .served import Served


@pytest.fixture
async def served(lab: Lab) -> AsyncIterator[Served]:
    """Three owners with a position each in one pool, the first with a closed one besides."""
    endpoint = HttpEndpoint(lab.node.http_url, timeout_s=10)
    served = Served(lab, endpoint)
    pool = lab.pool("WETH", "USDC", 500)
    tick = pool.align(lab.pool_state(pool).tick)
    for index, owner in enumerate(lab.owners[:3]):
        served.ids.append(await lab.mint_now(owner, pool, tick - 100 * (index + 1), tick + 100))
    served.ids.append(await lab.mint_now(lab.owners[0], pool, tick - 500, tick - 400))
    await lab.decrease(served.ids[-1])
    await lab.mine()
    yield served
    await endpoint.close()


class Output:
    def __init__(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()

    def consoles(self) -> dict[str, Any]:
        return {"out": Console(file=self.out, width=300), "err": Console(file=self.err, width=300)}


async def activity(served: Served) -> None:
    """A block in which something happens to some positions."""
    lab = served.lab
    pool = lab.pool("WETH", "USDC", 500)
    await lab.swap(pool, lab.head.number % 2 == 0, pool.token1.raw_of_usd(3000) if lab.head.number % 2 else 10**18)
    await lab.mine()


async def verify(
    served: Served,
    output: Output,
    *,
    step: Callable[[Served, Peer], Any] | None = None,
    **options: Any,
) -> int:
    """Run `verify` against the scripted server, which goes on until it ends."""
    deployment = served.lab.deployment
    async with ScriptedServer() as server, asyncio.TaskGroup() as group:
        await served.refresh()
        task = group.create_task(
            run_verify(
                url=server.url, rpc=served.lab.node.http_url, position_manager=deployment.position_manager,
                factory=deployment.factory, patience_s=20, **{"blocks": 4, **options}, **output.consoles(),
            )
        )  # fmt: skip
        arrival = group.create_task(server.next())
        await asyncio.wait({task, arrival}, return_when=asyncio.FIRST_COMPLETED)
        if arrival.done():
            peer = arrival.result()
            answering = group.create_task(served.answer(peer))
            with suppress(ConnectionClosed):
                while not task.done():
                    await activity(served)
                    if step is not None:
                        await step(served, peer)
                    await peer.send(await served.refresh())
            answering.cancel()
        arrival.cancel()
    return task.result()


async def test_a_server_that_is_right(served: Served) -> None:
    output = Output()
    assert await verify(served, output, everything=True, blocks=6, as_json=True) == 0
    summary = json.loads(output.out.getvalue())
    assert summary["differences"] == 0 and summary["blocks"] >= 6 and summary["positions"] == 4 + len(served.house)
    assert summary["values"] > 6 * 20 and summary["checksums"] > 6 and summary["ownership_checks"] >= 6


async def test_new_positions_and_owners_are_followed(served: Served) -> None:
    minted: list[int] = []

    async def step(served: Served, peer: Peer) -> None:
        lab = served.lab
        if not minted:
            pool = lab.pool("WETH", "USDC", 500)
            tick = pool.align(lab.pool_state(pool).tick)
            minted.append(await lab.mint_now(lab.deployment.stranger, pool, tick - 1000, tick + 1000))
            await lab.transfer(served.ids[0], lab.owners[1])
            await lab.burn(served.ids[2])
            await lab.mine()

    output = Output()
    assert await verify(served, output, everything=True, blocks=8, step=step) == 0, output.out.getvalue()
    assert "0 differences" in output.out.getvalue()
    assert f"{5 + len(served.house)} positions" in output.out.getvalue()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount0", "1"),
        ("collectable1", "123456"),
        ("liquidity", "0"),
        ("tick", 7),
        ("isActive", None),
        ("owner", "0x" + "00" * 20),
        ("price", "1"),
    ],
)
async def test_each_lie_about_a_position_is_found(served: Served, field: str, value: Any) -> None:
    def lie(channel: str, state: State) -> None:
        for key, entry in state.items():
            if key == f"uniswap-v3:{served.ids[1]}":
                entry[field] = (not entry["isActive"]) if field == "isActive" else value

    served.lie = lie
    output = Output()
    assert await verify(served, output, owners=[served.lab.owners[1]], blocks=2) == 1
    owner = to_checksum_address(served.lab.owners[1])
    assert f"{served.ids[1]} in owner:31337:{owner} {field}: ours" in output.out.getvalue()


@pytest.mark.parametrize(
    ("tag", "lie", "said"),
    [
        ("finalized", {"hash": "0x" + "11" * 32}, "finalized in head hash: ours 0x1111"),
        ("safe", {"timestamp": 7}, "safe in head timestamp: ours 7"),
        ("safe", {"number": 1 << 40}, f"safe in head number: ours {1 << 40}, the chain's none above"),
    ],
)
async def test_each_lie_about_what_is_final_is_found(served: Served, tag: str, lie: dict[str, Any], said: str) -> None:
    def tell(channel: str, state: State) -> None:
        if channel == served.head_channel:
            state[tag] = {**state[tag], **lie}

    served.lie = tell
    output = Output()
    assert await verify(served, output, owners=[served.lab.owners[1]], blocks=2) == 1
    assert said in output.out.getvalue()


async def test_a_position_that_is_withheld_is_found(served: Served) -> None:
    def lie(channel: str, state: State) -> None:
        state.pop(f"uniswap-v3:{served.ids[1]}", None)

    served.lie = lie
    output = Output()
    assert await verify(served, output, everything=True, blocks=2) == 1
    assert f"lacks [{served.ids[1]}], has wrongly []" in output.out.getvalue()


async def test_a_wrong_checksum_is_a_difference(served: Served) -> None:
    async def step(served: Served, peer: Peer) -> None:
        told = served.told[served.head_channel]
        change = {"channel": told.channel, "epoch": told.epoch, "prev": told.seq, "seq": told.seq + 1}
        lie = {**change, "cursor": "x", "checksum": 1, "patch": {"head": {"timestamp": 1}}}
        await peer.send(block_frame(block_json(1), lie))

    output = Output()
    assert await verify(served, output, owners=[served.lab.owners[1]], blocks=1, step=step, as_json=True) == 1
    assert any(found["field"] == "checksum" for found in json.loads(output.out.getvalue())["found"])


async def test_an_orphan_is_skipped(served: Served) -> None:
    orphaned: list[str] = []

    async def step(served: Served, peer: Peer) -> None:
        # What the server says of this block is a lie, but the block is gone when it is asked about.
        if not orphaned:
            orphaned.append(served.lab.head.hash)
            frame = await served.refresh()
            for change in frame["changes"]:
                for patch in change.get("patch", {}).values():
                    if "amount0" in patch:
                        patch["amount0"] = "1"
                change.pop("checksum")
            await served.lab.node.rpc("anvil_reorg", [1, []])
            await served.lab.catch_up()
            await peer.send(frame)

    output = Output()
    assert await verify(served, output, everything=True, blocks=3, step=step, as_json=True) == 0
    assert json.loads(output.out.getvalue())["skipped"] >= 1


async def test_too_many_positions(served: Served) -> None:
    output = Output()
    assert await verify(served, output, everything=True, limit=3) == 2
    assert f"has {4 + len(served.house)} positions and --limit is 3" in output.err.getvalue()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "--owner 0x"),
        ({"owners": ["0x12"]}, "40 hex digits"),
        ({"everything": True, "rpc": "ftp://x"}, "URL of a node"),
        ({"everything": True, "url": "host:80"}, "server's URL must be"),
    ],
)
async def test_usage(lab: Lab, options: dict[str, Any], said: str) -> None:
    output = Output()
    arguments = {"url": "http://127.0.0.1:1", "rpc": lab.node.http_url, **options}
    assert await run_verify(**arguments, **output.consoles()) == 2
    assert said in output.err.getvalue()


async def test_no_server(lab: Lab) -> None:
    output = Output()
    status = await run_verify(url="http://127.0.0.1:1", rpc=lab.node.http_url, everything=True, **output.consoles())
    assert status == 2 and "nothing listens there" in output.err.getvalue()


@asynccontextmanager
async def telling(*protocols: dict[str, Any], chain_id: int = 31337) -> AsyncIterator[str]:
    """Answer `/api/v1/info` with one chain's protocols, and nothing else; return the base URL."""

    async def info(request: web.Request) -> web.Response:
        chains = [{"chainId": chain_id, "name": "x", "protocols": list(protocols)}]
        return web.json_response({"version": "1", "chains": chains})

    app = web.Application()
    app.router.add_get("/api/v1/info", info)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def test_a_server_of_another_chain(lab: Lab) -> None:
    async with telling(chain_id=1) as url:
        output = Output()
        status = await run_verify(url=url, rpc=lab.node.http_url, everything=True, **output.consoles())
        assert status == 2 and "does not follow uniswap-v3 on chain 31337" in output.err.getvalue()


async def test_the_staker_is_the_servers_word_whoever_names_the_rest() -> None:
    """Without it, what is staked would seem to be the staker's own."""
    manager, factory, staker = ("0x" + f"{digit:02x}" * 20 for digit in (1, 2, 3))
    told = {"kind": "uniswap-v3", "positionManager": "0x" + "09" * 20, "factory": factory, "staker": staker}
    async with telling(told) as url:
        given = await fetch_deployment(url, 31337, manager, factory)
        assert (given.manager, given.factory, given.staker) == (manager, factory, staker)
        asked = await fetch_deployment(url, 31337, None, None)
        assert (asked.manager, asked.staker) == (told["positionManager"], staker)
    async with telling(told, chain_id=1) as url:
        assert (await fetch_deployment(url, 31337, manager, factory)).staker is None
    assert (await fetch_deployment("http://127.0.0.1:1", 31337, manager, factory)).staker is None
