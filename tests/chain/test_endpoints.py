"""The pool of endpoints on real nodes behind fault proxies: who is asked, who rests, who is not believed."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from faults.actions import (
    Action,
    Answer,
    CutOff,
    Delay,
    Disconnect,
    Drop,
    Edit,
    LogCap,
    Reply,
    Truncate,
    WrongId,
    busy,
    no_batches,
)
from faults.proxy import FaultProxy

from rtserver.chain.heads import stream_heads
from rtserver.chain.reader import ChainReader
from rtserver.chain.rpc import HttpEndpoint, Request, RpcError, TransportError, make_endpoint
from rtserver.demo.lab import Lab
from rtserver.demo.node import AnvilNode
from rtserver.demo.toolchain import Toolchain
from rtserver.domain.chain import Header
from rtserver.domain.errors import BlockGone, ChainUnavailable, HistoryPruned, PermanentError
from rtserver.domain.ids import Address
from rtserver.obs.metrics import Metrics
from rtserver.protocols.base import Call, LogFilter

ECHO, FAILS = Address("0x" + "0" * 39 + "4"), Address("0x" + "0" * 39 + "6")
CALLS: list[Call] = [(ECHO, b"one"), (FAILS, b"\xff" * 128), (ECHO, b"")]
RESULTS = [b"one", None, b""]


@pytest.fixture
async def plain(toolchain: Toolchain) -> AsyncIterator[AnvilNode]:
    async with AnvilNode(toolchain) as node:
        await node.rpc("anvil_mine", ["0x5"])
        yield node


@pytest.fixture
async def first(plain: AnvilNode) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(plain.http_url, plain.ws_url) as proxy:
        yield proxy


@pytest.fixture
async def second(plain: AnvilNode) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(plain.http_url, plain.ws_url) as proxy:
        yield proxy


@asynccontextmanager
async def reading(
    *urls: str, metrics: Metrics | None = None, timeout_s: float = 5.0, **limits: Any
) -> AsyncIterator[ChainReader]:
    endpoints = [make_endpoint(url, timeout_s=timeout_s) for url in urls]
    reader = ChainReader("test", endpoints, metrics or Metrics(), **limits)
    try:
        yield reader
    finally:
        await reader.close()


async def test_faults_of_one_endpoint_are_answered_by_the_other(first: FaultProxy, second: FaultProxy) -> None:
    faults: Sequence[Action] = (
        Disconnect(), CutOff(), Truncate(), WrongId(), Reply(b"<html>", 502), Reply(b"[]"), Reply(b"7"),
        Answer(-32000, "header not found"), Answer(-32005, "project ID request rate exceeded"),
        Answer(-32601, "the method does not exist"), Answer(-32000, "missing trie node 0x1"),
        Edit(lambda result: None), Edit(lambda result: 7),
    )  # fmt: skip
    for fault in faults:
        async with reading(first.http_url, second.http_url) as reader:
            head = await reader.latest()
            await reader.probe(head)
            rule = first.add(fault)
            assert (await reader.latest()).hash == head.hash, fault
            assert await reader.call(CALLS, head.hash, "block") == RESULTS, fault
            assert await reader.header(head.hash) == head, fault
            assert await reader.logs([head.hash], LogFilter(frozenset({ECHO}), frozenset({"0x" + "11" * 32}))) == [[]]
            rule.remove()


async def test_a_busy_endpoint_is_left_alone_for_as_long_as_it_says(first: FaultProxy, second: FaultProxy) -> None:
    async with reading(first.http_url, second.http_url) as reader:
        head = await reader.latest()
        await reader.probe(head)
        first.add(busy(60), times=1)
        first.reset_counts()
        for _ in range(5):
            assert await reader.call(CALLS, head.hash, "block") == RESULTS
        assert first.requests == 1
        (one, other) = reader.describe()
        assert one["restsMs"] > 50_000
        assert other["restsMs"] == 0
        second.add(Answer(-32005, "rate limited", {"rate": {"backoff_seconds": 30}}), times=1)
        with pytest.raises(ChainUnavailable, match="rest"):
            await reader.latest()
        asked = second.requests
        with pytest.raises(ChainUnavailable, match="rest"):
            await reader.latest()
        assert (first.requests, second.requests) == (1, asked), "nobody is asked while all rest"


async def test_a_nodes_own_reader_keeps_the_endpoints_limits(first: FaultProxy, second: FaultProxy) -> None:
    """Heads are followed node by node, and yet no endpoint is asked more than it allows."""
    async with reading(first.http_url, second.http_url) as reader:
        head = await reader.latest()
        one, other = reader.nodes().values()
        first.add(busy(60), times=1)
        with pytest.raises(ChainUnavailable, match="rest"):
            await one.latest()
        first.reset_counts()
        with pytest.raises(ChainUnavailable, match="rest"):
            await one.latest()
        assert (await other.latest()).hash == (await reader.latest()).hash == head.hash
        assert first.requests == 0, "who rests is left alone by everybody"
        assert [endpoint["restsMs"] > 0 for endpoint in reader.describe()] == [True, False]


async def test_no_more_is_outstanding_than_an_endpoint_allows(first: FaultProxy) -> None:
    async with reading(first.http_url, max_in_flight=3) as reader:
        first.add(Drop(), times=3)
        (node,) = reader.nodes().values()
        asking = [asyncio.ensure_future(one.latest()) for one in (reader, node) for _ in range(10)]
        await first.asked("eth_getBlockByNumber", 3)
        (told,) = reader.describe()
        assert (told["inFlight"], told["maxInFlight"], first.requests) == (3, 3, 3), "the others wait for their turn"
        for task in asking[:3]:
            task.cancel()
        answered = await asyncio.gather(*asking, return_exceptions=True)
        assert [isinstance(answer, Header) for answer in answered] == [False] * 3 + [True] * 17
        assert reader.describe()[0]["inFlight"] == 0


async def test_no_more_is_asked_than_the_budget_allows(first: FaultProxy) -> None:
    per_s = 100
    async with reading(first.http_url, per_s=per_s) as reader:
        assert reader.describe()[0]["callsPerS"] == reader.describe()[0]["callsLeft"] == per_s
        (node,) = reader.nodes().values()
        began = time.monotonic()
        for _ in range(75):
            await reader.latest()
            await node.latest()
        # However slow this machine is: a second's worth at once, and then the rate.
        assert first.requests == 150 <= per_s + per_s * (time.monotonic() - began) + 1


async def test_what_would_wait_for_the_budget_for_long_is_not_asked(first: FaultProxy, second: FaultProxy) -> None:
    metrics = Metrics()
    async with reading(first.http_url, metrics=metrics, per_s=2) as reader:
        # More than a second's worth at once goes through in debt, as it could never go otherwise.
        await reader.headers(0, 19)
        assert reader.describe()[0]["callsLeft"] < -10
        first.reset_counts()
        with pytest.raises(ChainUnavailable, match="budget"):
            await reader.latest()
        assert first.requests == 0
        labels = {"chain": "test", "endpoint": first.http_url, "kind": "budget"}
        assert metrics.registry.get_sample_value("rtserver_endpoint_errors_total", labels)
    async with reading(first.http_url, second.http_url, per_s=2) as reader:
        await reader.headers(0, 19)
        first.reset_counts()
        second.reset_counts()
        await reader.latest()
        assert (first.requests, second.requests) == (0, 1), "who has budget left is asked"


async def test_a_poll_brings_an_endpoint_back_that_is_out(first: FaultProxy) -> None:
    async with reading(first.http_url) as reader:
        (node,) = reader.nodes().values()
        await first.down()
        with pytest.raises(ChainUnavailable):
            await reader.latest()
        assert reader.describe()[0]["breaker"] == "opened"
        await first.up()
        head = await node.latest()
        (told,) = reader.describe()
        assert (told["breaker"], told["head"]) == ("closed", head.number)


async def test_a_block_of_another_branch_says_nothing_of_an_endpoints_view(
    first: FaultProxy, second: FaultProxy, toolchain: Toolchain
) -> None:
    async with AnvilNode(toolchain, genesis_timestamp=1_600_000_000) as fork:
        await fork.rpc("anvil_mine", ["0x64"])
        async with reading(first.http_url, second.http_url) as reader:
            await reader.probe(await reader.latest())
            first.switch(fork.http_url, fork.ws_url)
            await reader.look()
            (astray, _) = reader.nodes().values()
            theirs = await astray.latest()
            assert await astray.header(theirs.hash) == theirs
            assert await reader.header(theirs.hash) == theirs
            assert [one["view"] for one in reader.describe()] == ["other", "same"]


async def test_an_endpoint_that_is_out_is_not_asked_and_comes_back(first: FaultProxy, second: FaultProxy) -> None:
    metrics = Metrics()
    async with reading(first.http_url, second.http_url, metrics=metrics) as reader:
        head = await reader.latest()
        await first.down()
        for _ in range(10):
            assert (await reader.latest()).hash == head.hash
            await reader.look()
        assert reader.describe()[0]["breaker"] == "opened"
        labels = {"chain": "test", "endpoint": first.http_url}
        assert metrics.registry.get_sample_value("rtserver_endpoint_breaker", labels) == 2
        failed = metrics.registry.get_sample_value("rtserver_endpoint_errors_total", {**labels, "kind": "connect"})
        assert failed == 3, "three failures, then nothing more"
        await first.up()
        async with asyncio.timeout(10):
            while reader.describe()[0]["breaker"] != "closed":
                await reader.look()
                await asyncio.sleep(0.05)
        first.reset_counts()
        await reader.latest()
        assert first.requests == 1


async def test_the_only_endpoint_is_asked_whatever_its_breaker_says(first: FaultProxy) -> None:
    async with reading(first.http_url) as reader:
        head = await reader.latest()
        await first.down()
        for _ in range(3):
            with pytest.raises(ChainUnavailable):
                await reader.latest()
        assert reader.describe()[0]["breaker"] == "opened"
        await first.up()
        assert (await reader.latest()).hash == head.hash, "at once: there is nobody else to wait for"


async def test_an_endpoint_that_was_down_at_the_start_is_found_out_later(first: FaultProxy, second: FaultProxy) -> None:
    await first.down()
    async with reading(first.http_url, second.http_url) as reader:
        head = await reader.latest()
        await reader.probe(head)
        assert list(reader.ways) == [second.http_url]
        await first.up()
        await second.down()
        assert await reader.call(CALLS, head.hash, "block") == RESULTS
        assert reader.ways[first.http_url] == reader.ways[second.http_url]


async def test_a_lagging_endpoint_is_asked_last_until_it_has_caught_up(
    first: FaultProxy, second: FaultProxy, plain: AnvilNode
) -> None:
    async with reading(first.http_url, second.http_url) as reader:
        head = await reader.latest()
        await reader.probe(head)
        lag = first.add(Answer(-32000, "header not found"), "eth_call")
        first.reset_counts()
        for _ in range(5):
            assert await reader.call(CALLS, head.hash, "block") == RESULTS
        assert first.methods["eth_call"] == 1
        assert reader.describe()[0]["view"] in ("behind", "other")
        lag.remove()
        await reader.look()
        assert reader.describe()[0]["view"] == "same"
        assert await reader.call(CALLS, head.hash, "block") == RESULTS
        assert first.methods["eth_call"] > 1, "asked first again"
        for proxy in (first, second):
            proxy.add(Answer(-32000, "header not found"), "eth_call")
        with pytest.raises(BlockGone):
            await reader.call(CALLS, head.hash, "block")


async def test_an_endpoint_on_another_fork_is_set_aside(
    first: FaultProxy, second: FaultProxy, toolchain: Toolchain
) -> None:
    async with AnvilNode(toolchain, genesis_timestamp=1_600_000_000) as fork:
        await fork.rpc("anvil_mine", ["0x64"])
        async with reading(first.http_url, second.http_url) as reader:
            head = await reader.latest()
            await reader.probe(head)
            first.switch(fork.http_url, fork.ws_url)
            await reader.look()
            assert [one["view"] for one in reader.describe()] == ["other", "same"]
            assert reader.describe()[0]["head"] == 100
            assert (await reader.latest()).hash == head.hash, "higher, and not believed"
            assert await reader.call(CALLS, head.hash, "block") == RESULTS
            heads = [await node.latest() for node in reader.nodes().values()]
            assert [one.number for one in heads] == [100, head.number], "each node's own view is still to be had"


async def test_a_slow_read_is_hedged_within_the_budget(first: FaultProxy, second: FaultProxy) -> None:
    metrics = Metrics()
    async with reading(first.http_url, second.http_url, metrics=metrics) as reader:
        head = await reader.latest()
        await reader.probe(head)
        # What this machine is slow at meanwhile must not use up what is allowed, nor change who is asked first.
        reader._pool._hedges = -100.0
        for _ in range(24):
            await reader.call(CALLS, head.hash, "block")
        reader._pool._hedges = 3.0
        first.reset_counts()
        first.add(Drop(), "eth_call", times=1)
        assert await reader.call(CALLS, head.hash, "block") == RESULTS, "long before the time-out"
        async with asyncio.timeout(5):
            while not first.cancelled:
                await asyncio.sleep(0.01)
        labels = {"chain": "test", "endpoint": second.http_url, "outcome": "won"}
        assert metrics.registry.get_sample_value("rtserver_hedges_total", labels) == 1
        # Asked last now, so that the next reads need no hedge; until it answers a look.
        first.reset_counts()
        slow = first.add(Delay(0.5), "eth_call")
        for _ in range(20):
            assert await reader.call(CALLS, head.hash, "block") == RESULTS
        assert "eth_call" not in first.methods
        assert metrics.registry.get_sample_value("rtserver_hedges_total", labels) == 1
        await reader.look()
        await reader.call(CALLS, head.hash, "block")
        assert first.methods["eth_call"] == 1, "it answered, so it is asked first again"
        slow.remove()
        first.add(Delay(0.06), "eth_call")
        second.add(Delay(0.06), "eth_call")
        for _ in range(20):
            assert await reader.call(CALLS, head.hash, "block") == RESULTS
        outcomes = [
            sample.value
            for family in metrics.registry.collect()
            for sample in family.samples
            if sample.name == "rtserver_hedges_total"
        ]
        assert sum(outcomes) <= 4, "when all is slow there is no burst of hedges"


async def test_two_urls_of_one_node_are_no_hedge_for_each_other(first: FaultProxy) -> None:
    async with reading(first.ws_url, first.http_url) as reader:
        head = await reader.latest()
        await reader.probe(head)
        first.reset_counts()
        for _ in range(30):
            assert await reader.call(CALLS, head.hash, "block") == RESULTS
        assert {call.via for call in first.calls} == {"http"}, "http is preferred"
        first.add(Disconnect(), via="http")
        assert await reader.call(CALLS, head.hash, "block") == RESULTS
        assert first.calls[-1].via == "ws"


async def test_a_refused_batch_costs_batching_for_a_while_not_for_ever(first: FaultProxy) -> None:
    endpoint = HttpEndpoint(first.http_url, timeout_s=5)
    now = [0.0]
    endpoint._batches._clock = lambda: now[0]
    batch: list[Request] = [("eth_chainId", [])] * 4
    first.add(no_batches(), times=1, when=lambda call: call.batch > 1)
    assert await endpoint.send(batch) == ["0x7a69"] * 4
    first.reset_counts()
    assert await endpoint.send(batch) == ["0x7a69"] * 4
    assert first.requests == 4
    now[0] = 61.0
    first.reset_counts()
    assert await endpoint.send(batch) == ["0x7a69"] * 4
    assert first.requests == 1
    first.add(
        Reply(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"batch size is limited to 3"}}'),
        when=lambda call: call.batch > 3,
    )
    first.reset_counts()
    assert await endpoint.send(batch * 2) == ["0x7a69"] * 8
    assert first.requests == 1 + 3
    await endpoint.close()


async def test_a_socket_that_refuses_batches_is_asked_one_by_one(first: FaultProxy) -> None:
    endpoint = make_endpoint(first.ws_url, timeout_s=5)
    first.add(no_batches(), when=lambda call: call.batch > 1)
    assert await endpoint.send([("eth_chainId", [])] * 3) == ["0x7a69"] * 3
    await endpoint.close()


async def test_bodies_are_bounded(first: FaultProxy) -> None:
    endpoint = HttpEndpoint(first.http_url, timeout_s=5, max_answer_bytes=100_000)
    first.add(Reply(b'{"jsonrpc":"2.0","id":1,"result":"' + b"0" * 200_000 + b'"}'), times=1)
    with pytest.raises(TransportError, match="over 100000 bytes") as caught:
        await endpoint.send([("eth_chainId", [])])
    assert caught.value.kind == "too large"
    assert await endpoint.send([("eth_chainId", [])]) == ["0x7a69"]
    await endpoint.close()


async def test_pruned_history_is_a_clear_answer(first: FaultProxy, second: FaultProxy, plain: AnvilNode) -> None:
    async with reading(first.http_url, second.http_url) as reader:
        (old,) = await reader.headers(1, 1)
        await reader.probe(old)
        await plain.rpc("anvil_mine", ["0x80"])
        head = await reader.latest()
        assert await reader.call(CALLS, head.hash, "block") == RESULTS
        for proxy in (first, second):
            proxy.add(Answer(-32000, "missing trie node 0x12 (path ) state 0x34 is not available"), "eth_call")
        with pytest.raises(HistoryPruned):
            await reader.call(CALLS, old.hash, "load")
        with pytest.raises(BlockGone):
            await reader.call(CALLS, head.hash, "block")


async def test_without_pinning_by_hash_a_moved_head_is_noticed(first: FaultProxy, plain: AnvilNode) -> None:
    refusal = Answer(-32602, "invalid argument 1: json: cannot unmarshal object into Go value of type string")
    first.add(refusal, "eth_call", when=lambda call: isinstance(call.params[1], dict))
    first.add(Answer(-32602, "invalid params: blockHash parameter not supported"), "eth_getLogs",
              when=lambda call: "blockHash" in call.params[0])  # fmt: skip
    wanted = LogFilter(frozenset({ECHO}), frozenset({"0x" + "11" * 32}))
    async with reading(first.http_url) as reader:
        head = await reader.latest()
        await reader.probe(head)
        assert await reader.call(CALLS, head.hash, "block") == RESULTS
        assert await reader.logs([head.hash], wanted) == [[]]
        await plain.rpc("anvil_rollback", [2])
        await plain.rpc("evm_increaseTime", [hex(100)])
        await plain.rpc("anvil_mine", ["0x2"])
        with pytest.raises(BlockGone):
            await reader.call(CALLS, head.hash, "block")
        with pytest.raises(BlockGone):
            await reader.logs([head.hash], wanted)


async def test_history_is_read_in_the_pieces_that_are_allowed(lab: Lab) -> None:
    """Every cap and its words; the same events come out."""
    deployment = lab.deployment
    owner = lab.owners[0]
    pool = lab.pool("WETH", "USDC", 500)
    tick = pool.align(lab.pool_state(pool).tick)
    for width in range(1, 6):
        await lab.mint_now(owner, pool, tick - 100 * width, tick + 100 * width)
        await lab.node.rpc("anvil_mine", ["0x28"])
    await lab.catch_up()
    manager = Address(deployment.position_manager.lower())
    transfer = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"

    async def history(http: str, ws: str, cap: LogCap | None) -> tuple[list[tuple[int, int]], int]:
        async with FaultProxy(http, ws) as proxy, reading(proxy.http_url) as reader:
            if cap is not None:
                proxy.add(cap, "eth_getLogs")
            head = await reader.latest()
            logs = await reader.history(manager, [[transfer]], head)
            return [(entry.block_number, entry.index) for entry in logs], proxy.methods["eth_getLogs"]

    urls = (lab.node.http_url, lab.node.ws_url)
    whole, asked = await history(*urls, None)
    assert len(whole) >= 5
    assert asked == 1
    most = max(Counter(block for block, _ in whole).values())
    for cap in (
        LogCap(max_blocks=50, code=-32614, wide="eth_getLogs is limited to a {max_blocks} range"),
        LogCap(max_blocks=50, wide="block range is too wide"),
        LogCap(max_blocks=100, code=-32602,
               wide="You can make eth_getLogs requests with up to a {max_blocks} block range. Based on your "
               "parameters, this block range should work: [{first}, {last}]"),
        LogCap(max_results=most, many="query returned more than {max_results} results. Try with this block range "
               "[{first}, {last}]."),
        LogCap(max_results=most, code=-32602, many="query exceeds max results {max_results}, retry with the range 9-9"),
    ):  # fmt: skip
        pieces, asked = await history(*urls, cap)
        assert pieces == whole, cap
        assert 1 < asked < 60, cap
    with pytest.raises(PermanentError):
        await history(*urls, LogCap(max_results=0))


async def test_a_call_that_needs_more_than_its_share_of_gas_is_asked_alone(first: FaultProxy) -> None:
    """The pairing precompile takes 45,000 + 34,000 a pair: what fails in the loop for gas is answered on its own."""
    pairing = Address("0x" + "0" * 39 + "8")
    calls: list[Call] = [(ECHO, b"a"), (pairing, bytes(192 * 20)), (ECHO, b"b"), (FAILS, b"\xff" * 128)]
    async with reading(first.http_url) as reader:
        head = await reader.latest()
        await reader.probe(head)
        first.reset_counts()
        assert await reader.call(calls, head.hash, "block") == [b"a", (1).to_bytes(32, "big"), b"b", None]
        assert first.requests == 2


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def test_waiting_for_a_node_costs_no_cpu(first: FaultProxy) -> None:
    """A hanging read over http and over ws, and an idle subscription: under 5 % of a core together."""
    heads: list[Header] = []
    opened = asyncio.Event()

    async def follow() -> None:
        async for header in stream_heads(first.ws_url, 5.0, opened.set):
            heads.append(header)  # noqa: PERF401 - kept until it is cancelled

    async with reading(first.http_url) as http, reading(first.ws_url) as ws:
        await http.latest()
        await ws.latest()
        following = asyncio.ensure_future(follow())
        await opened.wait()
        first.freeze()
        waiting = [asyncio.ensure_future(reader.latest()) for reader in (http, ws)]
        began, used = time.monotonic(), cpu_s()
        await asyncio.sleep(2.0)
        share = (cpu_s() - used) / (time.monotonic() - began)
        assert not any(task.done() for task in (*waiting, following))
        first.thaw()
        await asyncio.gather(*waiting)
        following.cancel()
        await asyncio.wait({following})
    assert share < 0.05


async def test_what_is_told_of_endpoints_is_no_secret(first: FaultProxy) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    async with reading(f"{first.http_url}/v3/{secret}?key={secret}", f"{first.http_url}/v3/{secret[::-1]}") as reader:
        await reader.latest()
        names = [one["name"] for one in reader.describe()]
        assert names == [first.http_url, f"{first.http_url}#2"]
        assert secret not in str(reader.describe())
        first.add(Answer(-32601, "no"))
        with pytest.raises(RpcError) as caught:
            await reader.latest()
        assert secret not in str(caught.value)
