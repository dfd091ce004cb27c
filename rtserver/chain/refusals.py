"""What a node means by an error object: providers agree on neither codes nor words.

The words decide and the code only where there are none, because one code stands for several things (Infura's
-32005 is both a rate limit and too many logs). Pure; the texts that it was made from are in its tests.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

__all__ = ["Refusal", "allowed_blocks", "batch_limit", "classify", "rest_s", "suggested_range"]


class Refusal(StrEnum):
    """What went wrong, by what the asker does next."""

    # The call itself failed in the EVM: that is an answer.
    REVERTED = "reverted"
    # Out of the gas that the node allows: fewer at a time.
    OUT_OF_GAS = "out of gas"
    # The endpoint lags, or the block is orphaned: another endpoint.
    UNKNOWN_BLOCK = "unknown block"
    # The block is known and its state or logs are no more: an archive, or never.
    PRUNED = "pruned"
    # Too fast: later, or another endpoint.
    BUSY = "busy"
    # eth_getLogs over too many blocks, with too many results, or for too long: a shorter range.
    TOO_WIDE = "range too wide"
    TOO_MANY = "too many results"
    # The request, its answer or its run time is too much at once: fewer at a time.
    TOO_LARGE = "too large"
    # {"blockHash": …} is not understood as a block (EIP-1898), or not in a log filter (EIP-234): by number.
    NO_PINNING = "no pinning by hash"
    # Batches are refused, or longer ones than so many.
    BATCH = "batch"
    # The key is wrong, or the plan does not include this: another endpoint.
    DENIED = "denied"
    OTHER = "other"


# In this order: the first that is found decides. All lower case.
_WORDS: Final[Mapping[Refusal, tuple[str, ...]]] = {
    Refusal.BATCH: (
        r"batch(ed)? (requests? )?(are|is|limit|size|too|not|call limit)", "batch request was too large", "no batch",
        r"too many (requests|calls) in (a |the )?batch", r"batch.{0,20}(exceed|unsupported|disabled|not supported)",
        r"max(imum)? batch",
    ),
    Refusal.TOO_MANY: (
        r"more than [\d,.k]+ (results|logs)", r"max(imum)? (results|logs)", r"too many (results|logs|events)",
        "max logs per response", r"logs? (response )?(size|limit) exceeded", "results? limit exceeded",
        "logs matched by query exceeds", r"response (size )?(is )?(exceed|larger|too)", "oversized response",
    ),
    Refusal.TOO_WIDE: (
        "blocks? range", "range of blocks", r"range (is )?too (large|wide|big)", "too wide", "ranges? over",
        r"limited to an? [\d,.k]+ range", "range limit", r"max(imum)? range", "blocks? distance", r"range \d+ exceeds",
        "exceeds? (the )?range", "exceeds maximum rpc range", "too many blocks", r"at most [\d,.k]+ blocks",
        r"query (timeout|timed out|took)", "number of requested blocks", "max allowed range",
    ),
    Refusal.PRUNED: (
        "prun(ed|ing)", "missing trie node", "historical state", "state (is )?(not |un)available", "no state available",
        r"state 0x[0-9a-f]+ is not available", "archive",
    ),
    Refusal.UNKNOWN_BLOCK: (
        "header not found", "unknown block", r"block .{0,80}not found", "block not found", "not found for hash",
        "blockoutofrange", "block out of range", "header for hash", "(could not|cannot) find block", "no such block",
        "not currently canonical", "cannot be found", "greater than (the )?latest", "after last (accepted )?block",
        "resource not found",
    ),
    Refusal.BUSY: (
        "rate.?limit", "too many requests", "request limit", "limit reached", "compute units", "per second",
        "request count exceeded", "request rate", "rps limit", r"requests? (limit|quota)", "throttl", "credits",
        "quota", "busy", "over capacity", "try again later", "no backend is currently healthy",
        "temporarily unavailable", "overloaded",
    ),
    Refusal.OUT_OF_GAS: (
        "out of gas", "outofgas", "gas required exceeds", "exceeds (block )?gas limit", r"gas limit (is )?(too|exceed)",
        "gas uint64 overflow", "intrinsic gas", "exceeds allowance",
    ),
    Refusal.TOO_LARGE: (
        r"(request|payload|body|entity|message|content|calldata|data|code) (size |length |is )*(too|exceed|larger)",
        "oversized request", r"timed? ?out", "execution aborted", "deadline exceeded", "exceeded max limit",
    ),
    Refusal.REVERTED: (
        "revert", "invalid opcode", "bad instruction", "stack underflow", "stack overflow", "invalid jump",
        "evm error",
    ),
    Refusal.NO_PINNING: (
        "cannot unmarshal object", "eip-?1898", "did not match any variant", "invalid type: map", "hex string",
        r"blockhash.{0,40}(not supported|unsupported|not allowed|invalid|unknown)", "must be a string",
        "(unsupported|unknown|unexpected) .{0,20}blockhash", "expected (a )?(string|hex)",
        "invalid (block|hex).{0,30}(tag|number|string|parameter)",
    ),
    Refusal.DENIED: (
        r"unauthori[sz]ed", "forbidden", "api key", "access denied", "not authorized", "must be authenticated",
    ),
}  # fmt: skip
# A contract's own words follow "execution reverted", and may be anything: they must not be looked at.
_FIRST: Final = (
    (Refusal.REVERTED, re.compile(r"^(vm )?execution (error|reverted)|^reverted|^stack limit reached")),
    # Would be taken for a range that is too wide.
    (Refusal.UNKNOWN_BLOCK, re.compile(r"beyond (the )?(current )?head")),
)
_PATTERNS: Final = (*_FIRST, *((kind, re.compile("|".join(words))) for kind, words in _WORDS.items()))
# Where there are no words for it.
_CODES: Final[Mapping[int, Refusal]] = {
    3: Refusal.REVERTED,
    429: Refusal.BUSY,
    # EIP-1474: resource not found; limit exceeded. jsonrpsee: oversized request, oversized response, batch.
    -32001: Refusal.UNKNOWN_BLOCK,
    -32005: Refusal.BUSY,
    -32007: Refusal.BUSY,
    -32016: Refusal.BUSY,
    -32029: Refusal.BUSY,
    -32008: Refusal.TOO_MANY,
    -32020: Refusal.TOO_MANY,
    -32010: Refusal.BATCH,
    -32012: Refusal.TOO_WIDE,
    -32047: Refusal.TOO_WIDE,
    -32062: Refusal.TOO_WIDE,
    -32614: Refusal.TOO_WIDE,
    413: Refusal.TOO_LARGE,
    401: Refusal.DENIED,
    403: Refusal.DENIED,
    # EIP-4444.
    4444: Refusal.PRUNED,
}
_HEX_RANGE: Final = re.compile(r"\[\s*(0x[0-9a-f]+)\s*,\s*(0x[0-9a-f]+)\s*\]")
_DECIMAL_RANGE: Final = re.compile(r"range\s+(\d+)\s*-\s*(\d+)")
_NUMBER: Final = r"(\d[\d,]*)\s*(k)?\b"
_BLOCKS: Final = tuple(
    re.compile(pattern.replace("#", _NUMBER))
    for pattern in (
        r"max(?:imum)? block range[^\d]{0,12}#", r"max(?:imum)? range[^\d]{0,6}#", r"up to an? # block",
        r"limited to an? #", r"limited to 0 - #", r"maximum is set to #", r"max is #", r"(?:the )?limit is #",
        r"ranges? over # blocks", r"at most # blocks", r"exceeds limit of #", r"distance: #", r"requested blocks is #",
        r"maximum allowed is #", r"range limit exceeded \(max #", r"\(max(?:imum)? #", r"block range exceeds #",
        r"max block range = #", r"more than # blocks", r"range limit[^\d]{0,10}#",
    )
)  # fmt: skip
_BATCH_SIZE: Final = re.compile(r"(?:limit|max\w*|most|than|of|to)\D{0,25}(\d+)|(\d+)\s*(?:requests|calls)")
_SECONDS: Final = re.compile(r"(?:in|after|wait)\s+(\d+(?:\.\d+)?)\s*(ms|s)\b")


def classify(code: int, message: str, data: Any = None) -> Refusal:
    """Return what an error object means.

    Args:
        code: The JSON-RPC error code.
        message: The node's words.
        data: The node's data; jsonrpsee keeps its words there.
    """
    if code == 3:
        return Refusal.REVERTED
    text = message.lower()
    if isinstance(data, str) and not data.startswith("0x"):
        text += " " + data.lower()
    for kind, pattern in _PATTERNS:
        if pattern.search(text):
            return kind
    return _CODES.get(code, Refusal.OTHER)


def suggested_range(message: str) -> tuple[int, int] | None:
    """Return the range of blocks, both inclusive, that the node says would work."""
    text = message.lower()
    found = _HEX_RANGE.search(text)
    if found is not None:
        return int(found[1], 16), int(found[2], 16)
    found = _DECIMAL_RANGE.search(text)
    return None if found is None else (int(found[1]), int(found[2]))


def allowed_blocks(message: str) -> int | None:
    """Return how many blocks a range may span by the node's words."""
    text = message.lower()
    for pattern in _BLOCKS:
        found = pattern.search(text)
        if found is not None:
            count = int(found[1].replace(",", "")) * (1000 if found[2] else 1)
            if count > 0:
                return count
    return None


def batch_limit(message: str) -> int | None:
    """Return how many calls a batch may hold by the node's words; 1 where it says that it takes none."""
    text = message.lower()
    if re.search(r"not (supported|allowed|enabled|available)|unsupported|disabled|no batch", text):
        return 1
    found = _BATCH_SIZE.search(text)
    return None if found is None else max(int(found[1] or found[2]), 1)


def rest_s(message: str, data: Any) -> float | None:
    """Return for how many seconds the node wants to be left alone, if it says so.

    Infura puts it into data.rate.backoff_seconds.
    """
    if isinstance(data, Mapping):
        rate = data.get("rate")
        seconds = rate.get("backoff_seconds") if isinstance(rate, Mapping) else data.get("retry_after")
        if isinstance(seconds, (int, float)) and seconds >= 0:
            return float(seconds)
    found = _SECONDS.search(message.lower())
    return None if found is None else float(found[1]) / (1000 if found[2] == "ms" else 1)
