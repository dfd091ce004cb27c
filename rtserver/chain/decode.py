"""The decode boundary: JSON of a node into domain values. What passes here is trusted afterwards."""

from collections.abc import Mapping
from typing import Any

from ..domain.chain import Header, Log
from ..domain.errors import RetryableError
from ..domain.ids import Address, BlockHash

__all__ = ["MalformedAnswer", "header_of", "log_of"]


class MalformedAnswer(RetryableError):
    """A node's answer lacks a field or has it in another form."""


def _number(value: Any) -> int:
    return value if isinstance(value, int) else int(value, 16)


def _hex(value: Any) -> str:
    return value.lower() if isinstance(value, str) else "0x" + bytes(value).hex()


def _hash(value: Any) -> BlockHash:
    text = _hex(value)
    if len(text) != 66 or int(text, 16) < 0:
        raise ValueError(f"not a hash: {text[:80]!r}")
    return BlockHash(text)


def header_of(answer: Mapping[str, Any]) -> Header:
    """Return a header from a node's JSON or from web3's formatted form of it.

    Raises:
        MalformedAnswer: A field is missing or malformed.
    """
    try:
        bloom = answer.get("logsBloom")
        return Header(
            number=_number(answer["number"]),
            hash=_hash(answer["hash"]),
            parent_hash=_hash(answer["parentHash"]),
            timestamp=_number(answer["timestamp"]),
            # A node that leaves the bloom out can't exclude anything: all bits set.
            logs_bloom=(1 << 2048) - 1 if bloom is None else int(_hex(bloom), 16),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedAnswer(f"header: {error!r}") from error


def log_of(answer: Mapping[str, Any]) -> Log:
    """Return a log from a node's JSON.

    Raises:
        MalformedAnswer: A field is missing or malformed.
    """
    try:
        return Log(
            address=Address(answer["address"].lower()),
            topics=tuple(answer["topics"]),
            data=answer["data"][2:],
            block_hash=BlockHash(answer["blockHash"].lower()),
            block_number=int(answer["blockNumber"], 16),
            index=int(answer["logIndex"], 16),
            tx_hash=answer["transactionHash"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedAnswer(f"log: {error!r}") from error
