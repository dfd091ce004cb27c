"""The reader against scripted nodes: fallback, counting, batching ways probed, refused batches halved."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from rtserver.chain import evm_batch
from rtserver.chain.evm_batch import Way
from rtserver.chain.reader import ChainReader
from rtserver.chain.rpc import HttpEndpoint, RpcError
from rtserver.domain.chain import Header
from rtserver.domain.errors import BlockGone, ChainUnavailable, PermanentError
from rtserver.domain.ids import Address, BlockHash
from rtserver.obs.metrics import Metrics
from rtserver.protocols.base import Call, LogFilter

from . import tiny_evm
from .scripted_node import Refusal, ScriptedNode, scripted_node

HEAD = Header(number=5, hash=BlockHash("0x" + "11" * 32), parent_hash=BlockHash("0x0"), timestamp=9, logs_bloom=0)
ECHO, REVERTS = Address("0x" + "0" * 39 + "4"), Address("0x" + "0" * 39 + "6")


def _answer(address: int, data: bytes) -> tuple[bool, bytes]:
    """Be the precompiles: 4 echoes, 6 reverts here, others have no code."""
    return (False, b"") if address == 6 else (True, data if address == 4 else b"")


def eth_call(ways: Sequence[Way]) -> Any:
    """Return an eth_call of a node on which only these ways of batching work."""

    def call(transaction: dict[str, str], block: dict[str, str], override: Any = None) -> str:
        if block["blockHash"] != HEAD.hash:
            raise Refusal(-32000, "header not found")
        data = bytes.fromhex(transaction["data"][2:])
        if override is not None:
            if Way.OVERRIDE not in ways:
                raise Refusal(-32602, "too many arguments, want at most 2")
            (code,) = override.values()
            return "0x" + tiny_evm.run(bytes.fromhex(code["code"][2:]), data, _answer).hex()
        if "to" not in transaction:
            if Way.DEPLOYLESS not in ways:
                raise Refusal(-32000, "contract creation is not allowed")
            return "0x" + tiny_evm.run(data, b"", _answer).hex()
        success, returned = _answer(int(transaction["to"], 16), data)
        if not success:
            raise Refusal(3, "execution reverted")
        return "0x" + returned.hex()

    return call


@pytest.fixture
async def nodes() -> AsyncIterator[tuple[ScriptedNode, ScriptedNode]]:
    async with scripted_node() as first, scripted_node() as second:
        for node in (first, second):
            node.methods["eth_call"] = eth_call(list(Way))
            node.methods["eth_chainId"] = lambda: "0x7a69"
        yield first, second


@pytest.fixture
async def reader(nodes: tuple[ScriptedNode, ScriptedNode]) -> AsyncIterator[ChainReader]:
    made = ChainReader("test", [HttpEndpoint(node.http, timeout_s=5) for node in nodes], Metrics())
    yield made
    await made.close()


CALLS: list[Call] = [(ECHO, b"one"), (REVERTS, b"x"), (Address("0x" + "ab" * 20), b"none"), (ECHO, b"")]
RESULTS = [b"one", None, b"", b""]


@pytest.mark.parametrize("ways", [[Way.OVERRIDE], [Way.DEPLOYLESS], []], ids=["override", "deployless", "json-batch"])
async def test_the_way_is_probed_and_all_answer_alike(
    nodes: tuple[ScriptedNode, ScriptedNode], reader: ChainReader, ways: list[Way]
) -> None:
    for node in nodes:
        node.methods["eth_call"] = eth_call(ways)
    await reader.probe(HEAD)
    nodes[0].requests.clear()
    before = reader.calls_sent
    assert await reader.call(CALLS, HEAD.hash, "block") == RESULTS
    assert len(nodes[0].requests) == 1, "one message, whatever the way"
    assert reader.calls_sent - before == (1 if ways else len(CALLS))
    assert await reader.call([], HEAD.hash, "block") == []


async def test_a_large_read_stays_one_message(nodes: tuple[ScriptedNode, ScriptedNode], reader: ChainReader) -> None:
    await reader.probe(HEAD)
    nodes[0].requests.clear()
    calls: list[Call] = [(ECHO, index.to_bytes(4, "big")) for index in range(2000)]
    assert await reader.call(calls, HEAD.hash, "load") == [data for _, data in calls]
    assert [len(request) for request in nodes[0].requests] == [-(-2000 // evm_batch.MAX_CALLS[Way.OVERRIDE])]


async def test_a_batch_that_is_too_much_gas_is_halved(
    nodes: tuple[ScriptedNode, ScriptedNode], reader: ChainReader
) -> None:
    await reader.probe(HEAD)
    whole = eth_call(list(Way))

    def small_only(transaction: dict[str, str], block: dict[str, str], override: Any = None) -> str:
        if len(transaction["data"]) > 2 + 2 * 3 * 26:
            raise Refusal(-32000, "out of gas")
        return str(whole(transaction, block, override))

    nodes[0].methods["eth_call"] = small_only
    calls: list[Call] = [(ECHO, index.to_bytes(4, "big")) for index in range(10)]
    assert await reader.call(calls, HEAD.hash, "block") == [data for _, data in calls]


async def test_the_next_endpoint_answers_for_one_that_is_away(
    nodes: tuple[ScriptedNode, ScriptedNode], reader: ChainReader
) -> None:
    nodes[0].raw += [(502, b"")] * 5
    assert await reader.chain_id() == 31337
    assert await reader.chain_id() == 31337
    assert len(nodes[0].requests) == 1, "asked last from then on"
    nodes[1].raw += [(502, b"")] * 5
    with pytest.raises(ChainUnavailable):
        await reader.chain_id()


async def test_a_lagging_endpoint_does_not_hide_a_block_that_another_has(
    nodes: tuple[ScriptedNode, ScriptedNode], reader: ChainReader
) -> None:
    await reader.probe(HEAD)

    def lags(*_: Any) -> None:
        raise Refusal(-32001, "header not found")

    nodes[0].methods["eth_call"] = lags
    assert await reader.call(CALLS, HEAD.hash, "block") == RESULTS
    nodes[1].methods["eth_call"] = lags
    with pytest.raises(BlockGone):
        await reader.call(CALLS, HEAD.hash, "block")
    nodes[0].methods["eth_getBlockByHash"] = lags
    nodes[1].methods["eth_getBlockByHash"] = lambda *_: None
    assert await reader.header(HEAD.hash) is None


async def test_a_refused_request_is_permanent(nodes: tuple[ScriptedNode, ScriptedNode], reader: ChainReader) -> None:
    with pytest.raises(PermanentError, match="does not exist") as caught:
        await reader.latest()
    assert isinstance(caught.value, RpcError)


async def test_only_wanted_logs_come_through(nodes: tuple[ScriptedNode, ScriptedNode], reader: ChainReader) -> None:
    wanted, other = Address("0x" + "aa" * 20), Address("0x" + "bb" * 20)
    asked: list[dict[str, Any]] = []

    def get_logs(query: dict[str, Any]) -> list[dict[str, Any]]:
        asked.append(query)
        return [
            {
                "address": address, "topics": ["0x" + "01" * 32], "data": "0x", "blockHash": query["blockHash"],
                "blockNumber": "0x5", "logIndex": hex(index), "transactionHash": "0x",
            }
            for index, address in enumerate((wanted, other))
        ]  # fmt: skip

    nodes[0].methods["eth_getLogs"] = get_logs
    (logs, again) = await reader.logs(
        [HEAD.hash, HEAD.hash], LogFilter(frozenset({wanted}), frozenset({"0x" + "01" * 32}))
    )
    assert [log.address for log in logs] == [wanted]
    assert len(again) == 1
    assert asked[0]["address"] == [wanted]
    assert asked[0]["topics"] == [["0x" + "01" * 32]]
    many = frozenset(Address(f"0x{index:040x}") for index in range(1001)) | {wanted}
    (logs,) = await reader.logs([HEAD.hash], LogFilter(many, frozenset({"0x" + "01" * 32})))
    assert "address" not in asked[-1], "topics select, the rest is dropped here"
    assert [log.address for log in logs] == [wanted]


async def test_one_blocks_logs_are_asked_for_by_fewer_contracts_where_they_are_too_many(
    nodes: tuple[ScriptedNode, ScriptedNode], reader: ChainReader
) -> None:
    contracts = [Address(f"0x{index:040x}") for index in range(1, 8)]
    asked: list[list[str]] = []
    most = 2

    def get_logs(query: dict[str, Any]) -> list[dict[str, Any]]:
        asked.append(query["address"])
        if len(query["address"]) > most:
            raise Refusal(-32005, f"query returned more than {most} results")
        return [
            {
                "address": address, "topics": ["0x" + "01" * 32], "data": "0x", "blockHash": query["blockHash"],
                # As the block has them: in another order than that of the contracts.
                "blockNumber": "0x5", "logIndex": hex(contracts.index(Address(address)) * 3 % 7),
                "transactionHash": "0x",
            }
            for address in query["address"]
        ]  # fmt: skip

    nodes[0].methods["eth_getLogs"] = get_logs
    wanted = LogFilter(frozenset(contracts), frozenset({"0x" + "01" * 32}))
    first, second = await reader.logs([HEAD.hash, HEAD.hash], wanted)
    assert [log.index for log in first] == list(range(7))
    assert {log.address for log in first} == set(contracts)
    assert second == first
    assert max(map(len, asked[2:])) <= 7
    most = 0
    nodes[1].methods["eth_getLogs"] = get_logs
    with pytest.raises(PermanentError, match="more than"):
        await reader.logs([HEAD.hash], wanted)


async def test_a_history_of_another_branch_is_refused(
    nodes: tuple[ScriptedNode, ScriptedNode], reader: ChainReader
) -> None:
    """A range is asked for by height, so the answer is only worth something from a node on our branch."""
    event = {
        "address": "0x" + "aa" * 20,
        "topics": ["0x" + "01" * 32],
        "data": "0x" + "00" * 32,
        "blockHash": "0x" + "22" * 32,
        "blockNumber": "0x3",
        "logIndex": "0x0",
        "transactionHash": "0x" + "33" * 32,
    }
    header = {"number": "0x5", "hash": HEAD.hash, "parentHash": "0x" + "00" * 32, "timestamp": "0x9"}
    nodes[0].methods["eth_getLogs"] = lambda *_: [event]
    nodes[0].methods["eth_getBlockByNumber"] = lambda *_: header
    (told,) = await reader.history(Address("0x" + "aa" * 20), [["0x" + "01" * 32]], HEAD)
    assert told.block_number == 3
    for other in ({**header, "hash": "0x" + "99" * 32}, None):
        nodes[0].methods["eth_getBlockByNumber"] = lambda *_, other=other: other
        with pytest.raises(BlockGone):
            await reader.history(Address("0x" + "aa" * 20), [["0x" + "01" * 32]], HEAD)


async def test_headers_are_remembered_once_and_not_for_ever(
    nodes: tuple[ScriptedNode, ScriptedNode], reader: ChainReader
) -> None:
    """Each node is asked for its own, all of them for ours: 512 are enough for all."""

    def block(tag: str, full: bool) -> dict[str, Any]:
        number = int(tag, 16)
        return {
            "number": tag, "hash": f"0x{number:064x}", "parentHash": f"0x{number - 1:064x}", "timestamp": "0x1",
            "logsBloom": "0x0",
        }  # fmt: skip

    for node in nodes:
        node.methods["eth_getBlockByNumber"] = block
    first = 1_000_000
    for one in (reader, *reader.nodes().values()):
        for start in range(first, first + 900, 300):
            assert len(await one.headers(start, start + 299)) == 300
    gc.collect()
    kept = [each for each in gc.get_objects() if type(each) is Header and each.number >= first]
    assert {each.number for each in kept} == set(range(first + 388, first + 900))
    assert len(kept) == 512
