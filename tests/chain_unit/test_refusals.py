"""What providers say when they refuse, in their own documented words, and what it means."""

from __future__ import annotations

import pytest

from rtserver.chain.refusals import Refusal, allowed_blocks, batch_limit, classify, rest_s, suggested_range

R = Refusal
ALCHEMY_SIZE = (
    "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on the "
    "response size, or you can request any block range with a cap of 10K logs in the response. Based on your "
    "parameters and the response size limit, this block range should work: [0x0, 0x79bcb3]"
)
ALCHEMY_FREE = (
    "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range. Based on your "
    "parameters, this block range should work: [0x1180fca, 0x1180fd3]. Upgrade to PAYG for expanded block range."
)
ALCHEMY_BUSY = (
    "Your app has exceeded its compute units per second capacity. If you have retries enabled, you can safely "
    "ignore this message. If not, check out https://docs.alchemy.com/reference/throughput"
)
QUICKNODE_BUSY = "50/second request limit reached - reduce calls per second or upgrade your account at quicknode.com"


@pytest.mark.parametrize(
    ("code", "message", "kind", "suggested", "allowed"),
    [
        (-32602, ALCHEMY_SIZE, R.TOO_MANY, (0, 0x79BCB3), 2000),
        (-32600, ALCHEMY_FREE, R.TOO_WIDE, (0x1180FCA, 0x1180FD3), 10),
        (-32005, "query returned more than 10000 results. Try with this block range [0xCB3D, 0x7B737].", R.TOO_MANY,
         (0xCB3D, 0x7B737), None),
        (-32602, "range 1000000 exceeds limit of 10000", R.TOO_WIDE, None, 10000),
        (-32614, "eth_getLogs is limited to a 10,000 range", R.TOO_WIDE, None, 10000),
        (-32012, "requested range too large", R.TOO_WIDE, None, None),
        (-32600, "block range is too wide", R.TOO_WIDE, None, None),
        (-32062, "Block range is too large", R.TOO_WIDE, None, None),
        (-32602, "maximum [from, to] blocks distance: 10000", R.TOO_WIDE, None, 10000),
        (-32000, "exceed maximum block range: 5000", R.TOO_WIDE, None, 5000),
        (35, "ranges over 10000 blocks are not supported on freetier", R.TOO_WIDE, None, 10000),
        (-32602, "query exceeds max results 20000, retry with the range 6000000-6000509", R.TOO_MANY,
         (6000000, 6000509), None),
        (-32602, "query exceeds max block range 100000", R.TOO_WIDE, None, 100000),
        (-32000, "requested too many blocks from 0 to 16777216, maximum is set to 2048", R.TOO_WIDE, None, 2048),
        (-32000, "too wide blocks range, the limit is 100", R.TOO_WIDE, None, 100),
        (-32000, "block range is larger than max block range, block range = 5120, max block range = 5000", R.TOO_WIDE,
         None, 5000),
        (-32047, "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: 800", R.TOO_WIDE,
         None, 800),
        (-32602, "eth_getLogs is limited to 0 - 50 blocks range", R.TOO_WIDE, None, 50),
        (-32000, "block range too large (2000), maximum allowed is 1000 blocks", R.TOO_WIDE, None, 1000),
        (-32000, "Query timeout exceeded. Consider reducing your block range.", R.TOO_WIDE, None, None),
    ],
)  # fmt: skip
def test_ranges_of_logs(
    code: int, message: str, kind: Refusal, suggested: tuple[int, int] | None, allowed: int | None
) -> None:
    assert classify(code, message) is kind
    assert suggested_range(message) == suggested
    assert allowed_blocks(message) == allowed


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (429, ALCHEMY_BUSY, R.BUSY),
        (-32005, "daily request count exceeded, request rate limited", R.BUSY),
        (-32005, "project ID request rate exceeded", R.BUSY),
        (-32007, QUICKNODE_BUSY, R.BUSY),
        (-32012, "credits limited to 6000/sec", R.BUSY),
        (-32016, "over rate limit", R.BUSY),
        (-32009, "Server is busy, try again later", R.BUSY),
        (-32000, "You've exceeded the RPS limit available on the current plan.", R.BUSY),
        (-32005, "", R.BUSY),
        (-32007, "Request is too big", R.TOO_LARGE),
        (-32008, "Response is too big", R.TOO_MANY),
        (-32003, "response too large", R.TOO_MANY),
        (-32002, "request timed out", R.TOO_LARGE),
        (-32000, "execution aborted (timeout = 5s)", R.TOO_LARGE),
        (-32000, "out of gas", R.OUT_OF_GAS),
        (-32000, "gas required exceeds allowance (50000000)", R.OUT_OF_GAS),
        (-32005, "Batched requests are not supported by this server", R.BATCH),
        (-32010, "The batch request was too large", R.BATCH),
        (-32600, "batch too large", R.BATCH),
        (-32000, "missing trie node 5c0ee75d9dd6 (path ) state 0x12ab is not available", R.PRUNED),
        (4444, "pruned history unavailable", R.PRUNED),
        (-32000, "History has been pruned for this block", R.PRUNED),
        (-32000, "required historical state unavailable (reexec=128)", R.PRUNED),
        (-32000, "header not found", R.UNKNOWN_BLOCK),
        (-32000, "header for hash not found", R.UNKNOWN_BLOCK),
        (-32000, "hash 0xab is not currently canonical", R.UNKNOWN_BLOCK),
        (-32001, "block not found: hash 0xab", R.UNKNOWN_BLOCK),
        (-32602, "block range extends beyond current head block", R.UNKNOWN_BLOCK),
        (-32000, "One of the blocks specified in filter (fromBlock, toBlock or blockHash) cannot be found.",
         R.UNKNOWN_BLOCK),
        (3, "execution reverted: header not found", R.REVERTED),
        (-32000, "execution reverted: too many requests", R.REVERTED),
        (-32603, "EVM error PrecompileError", R.REVERTED),
        (-32603, "EVM error OutOfGas", R.OUT_OF_GAS),
        (-32015, "VM execution error.", R.REVERTED),
        (-32000, "invalid opcode: INVALID", R.REVERTED),
        (-32602, "invalid argument 1: json: cannot unmarshal object into Go value of type string", R.NO_PINNING),
        (-32601, "the method does not exist", R.OTHER),
        (-32602, "too many arguments, want at most 2", R.OTHER),
        (-32600, "Must be authenticated!", R.DENIED),
    ],
)  # fmt: skip
def test_everything_else(code: int, message: str, kind: Refusal) -> None:
    assert classify(code, message) is kind


def test_numbers_in_words() -> None:
    assert batch_limit("batches are not supported") == 1
    assert batch_limit("batch size is limited to 10") == 10
    assert batch_limit("The batch request was too large") is None
    assert rest_s("", {"rate": {"backoff_seconds": 30, "allowed_rps": 10}}) == 30
    assert rest_s("too many requests, retry in 250ms", None) == 0.25
    assert rest_s("too many requests", "0x") is None
    assert classify(-32005, "limit", "too many requests") is R.BUSY
