"""The past of a contract through what providers allow: where it begins, in which pieces, of whose chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from faults.actions import Answer, LogCap
from faults.proxy import FaultProxy

from rtserver.chain.reader import ChainReader
from rtserver.chain.rpc import make_endpoint
from rtserver.client import RtClient
from rtserver.demo.lab import Lab
from rtserver.demo.ports import free_port
from rtserver.demo.server import await_ready, start_server, url_of
from rtserver.demo.settings_file import settings_toml
from rtserver.domain.errors import BlockGone, PermanentError
from rtserver.domain.ids import Address
from rtserver.obs.metrics import Metrics

TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
# An init code whose code is one STOP, and that logs once as it runs (LOG1 of nothing, topic 1).
LOGS_ONCE = "0x600160006000a1600060005360016000f3"
BORN = 151


@pytest.fixture
async def young(lab: Lab) -> Address:
    """A contract that came to be late, and logged then."""
    await lab.node.rpc("anvil_mine", [hex(BORN - 1 - lab.head.number)])
    sent = {"from": lab.owners[0], "data": LOGS_ONCE, "gas": "0x30d40", "gasPrice": "0x77359400"}
    tx_hash = await lab.node.rpc("eth_sendTransaction", [sent])
    await lab.node.rpc("evm_mine", [])
    receipt = await lab.node.rpc("eth_getTransactionReceipt", [tx_hash])
    assert int(receipt["blockNumber"], 16) == BORN
    await lab.node.rpc("anvil_mine", ["0x64"])
    await lab.catch_up()
    return Address(receipt["contractAddress"].lower())


@asynccontextmanager
async def reading(
    lab: Lab, first_blocks: Mapping[Address, int] | None = None
) -> AsyncIterator[tuple[FaultProxy, ChainReader]]:
    async with FaultProxy(lab.node.http_url, lab.node.ws_url) as proxy:
        endpoints = [make_endpoint(proxy.http_url, timeout_s=5)]
        reader = ChainReader("test", endpoints, Metrics(), first_blocks=first_blocks or {})
        try:
            yield proxy, reader
        finally:
            await reader.close()


def asked(proxy: FaultProxy) -> list[int]:
    """Return the first block of each range that was asked for."""
    return [int(call.params[0]["fromBlock"], 16) for call in proxy.calls if call.method == "eth_getLogs"]


async def test_the_past_begins_with_the_contract_where_ranges_are_capped(lab: Lab, young: Address) -> None:
    async with reading(lab) as (proxy, reader):
        head = await reader.latest()
        (whole,) = await reader.history(young, [], head)
        assert whole.block_number == BORN
        assert (asked(proxy), proxy.methods["eth_getCode"]) == ([0], 0), "where all is allowed, nothing else is asked"
        proxy.add(LogCap(max_blocks=20), "eth_getLogs")
        proxy.reset_counts()
        assert await reader.history(young, [], head) == [whole]
        assert asked(proxy)[:2] == [0, BORN]
        assert proxy.methods["eth_getCode"] <= 10
        proxy.reset_counts()
        assert await reader.history(young, [], head) == [whole]
        assert min(asked(proxy)) == BORN
        assert proxy.methods["eth_getCode"] == 0, "it is known now"


async def test_without_an_archive_the_past_begins_at_block_0(lab: Lab, young: Address) -> None:
    async with reading(lab) as (proxy, reader):
        head = await reader.latest()
        proxy.add(LogCap(max_blocks=50), "eth_getLogs")
        proxy.add(Answer(-32000, "missing trie node 0x12 (path )"), "eth_getCode",
                  when=lambda call: int(call.params[1], 16) < head.number - 20)  # fmt: skip
        (found,) = await reader.history(young, [], head)
        assert found.block_number == BORN
        assert asked(proxy)[:2] == [0, 0]
        codes = proxy.methods["eth_getCode"]
        await reader.history(young, [], head)
        assert proxy.methods["eth_getCode"] == codes, "not asked again and again"


async def test_a_first_block_that_is_told_is_where_the_past_begins(lab: Lab, young: Address) -> None:
    async with reading(lab, {young: 120}) as (proxy, reader):
        head = await reader.latest()
        assert len(await reader.history(young, [], head)) == 1
        proxy.add(LogCap(max_blocks=50), "eth_getLogs")
        assert len(await reader.history(young, [], head)) == 1
        assert asked(proxy)[:2] == [120, 120]
        assert proxy.methods["eth_getCode"] == 0
    async with reading(lab, {young: 12_369_621}) as (proxy, reader):
        assert len(await reader.history(young, [], await reader.latest())) == 1
        assert asked(proxy) == [0], "this chain is younger"


async def test_words_that_nobody_knows_are_taken_for_a_range(lab: Lab, young: Address) -> None:
    async with reading(lab) as (proxy, reader):
        head = await reader.latest()
        proxy.add(LogCap(max_blocks=30, code=-32099, wide="please be modest"), "eth_getLogs")
        assert len(await reader.history(young, [], head)) == 1
        assert proxy.methods["eth_getCode"] == 0


async def test_what_is_after_a_block_is_of_one_chain_with_it(lab: Lab) -> None:
    manager = Address(lab.deployment.position_manager.lower())
    pool = lab.pool("WETH", "USDC", 500)
    tick = pool.align(lab.pool_state(pool).tick)
    for width in (1, 2, 3):
        await lab.mint_now(lab.owners[0], pool, tick - 100 * width, tick + 100 * width)
    async with reading(lab) as (proxy, reader):
        head = await reader.latest()
        (before,) = await reader.headers(head.number - 2, head.number - 2)
        logs = await reader.history(manager, [[TRANSFER]], head, before.ref)
        assert [log.block_number for log in logs] == [head.number - 1, head.number]
        proxy.add(LogCap(max_blocks=1), "eth_getLogs")
        assert await reader.history(manager, [[TRANSFER]], head, before.ref) == logs
        assert proxy.methods["eth_getCode"] == 0
        with pytest.raises(PermanentError, match="too many"):
            await reader.history(manager, [[TRANSFER]], head, before.ref, 2)
        proxy.clear()
        await lab.node.rpc("anvil_reorg", [3, []])
        await lab.catch_up()
        now = await reader.latest()
        with pytest.raises(BlockGone):
            await reader.history(manager, [[TRANSFER]], now, before.ref)


async def test_the_settings_first_block_is_what_a_server_asks_from(lab: Lab, tmp_path: Path) -> None:
    pool = lab.pool("WETH", "USDC", 500)
    tick = pool.align(lab.pool_state(pool).tick)
    await lab.mint_now(lab.owners[0], pool, tick - 100, tick + 100)
    async with FaultProxy(lab.node.http_url, lab.node.ws_url) as proxy:
        text = settings_toml(lab.deployment, ws_url=lab.node.ws_url, http_url=proxy.http_url)
        settings = tmp_path / "rtserver.toml"
        settings.write_text(text.replace('kind = "uniswap-v3"', 'kind = "uniswap-v3"\nfirst_block = 1'))
        port = free_port()
        server = start_server(settings, host="127.0.0.1", port=port, log=tmp_path / "server.log")
        try:
            await await_ready(server, url_of("127.0.0.1", port))
            async with RtClient(f"ws://127.0.0.1:{port}/ws") as client:
                owner = f"owner:{lab.deployment.chain_id}:{lab.owners[0]}"
                await (await client.subscribe(owner)).opened()
                # Channels wait for the past of what is in them.
                queries = [call.params[0] for call in proxy.calls if call.method == "eth_getLogs"]
                assert {query["fromBlock"] for query in queries if "fromBlock" in query} == {"0x1"}
        finally:
            await server.end(timeout_s=5.0)
