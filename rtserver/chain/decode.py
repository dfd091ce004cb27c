"""The decode boundary: JSON of a node into domain values. What passes here is trusted afterwards."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from ..domain.chain import Header, Log
from ..domain.errors import RetryableError
from ..domain.ids import Address, BlockHash

__all__ = ["MalformedAnswer", "header_of", "log_of"]


class MalformedAnswer(RetryableError):
    """A node's answer lacks a field or has it in another form."""


# Heights and times beyond this are nonsense, and no JSON encoder takes them.
_MAX_NUMBER: Final = (1 << 63) - 1


def _number(value: Any) -> int:
    number = value if isinstance(value, int) else int(value, 16)
    if not 0 <= number <= _MAX_NUMBER:
        raise ValueError(f"not a height or time: {str(value)[:40]}")
    return number


def _hex(value: Any) -> str:
    # bytes(n) of a number would be n zero bytes.
    if isinstance(value, str):
        return value.lower()
    if not isinstance(value, bytes):
        raise TypeError(f"not hex: {type(value).__name__}")
    return "0x" + value.hex()


def _hash(value: Any) -> BlockHash:
    text = _hex(value)
    if len(text) != 66 or int(text, 16) < 0:
        raise ValueError(f"not a hash: {text[:80]!r}")
    return BlockHash(text)


@lru_cache(maxsize=1024)
def _one(text: BlockHash) -> BlockHash:
    # Not `sys.intern`: Python's table of names doubles after some ten thousand new ones, also if all old ones are gone.
    return text


def _block_hash(value: Any) -> BlockHash:
    # One text for all who keep it: the header, its child, what several nodes say, the events that are remembered of it.
    return _one(_hash(value))


def header_of(answer: Mapping[str, Any]) -> Header:
    """Return a header from a node's JSON or from web3's formatted form of it.

    Raises:
        MalformedAnswer: A field is missing or malformed.
    """
    try:
        bloom = answer.get("logsBloom")
        return Header(
            number=_number(answer["number"]),
            hash=_block_hash(answer["hash"]),
            parent_hash=_block_hash(answer["parentHash"]),
            timestamp=_number(answer["timestamp"]),
            # A node that leaves the bloom out can't exclude anything: all bits set.
            logs_bloom=(1 << 2048) - 1 if bloom is None else int(_hex(bloom), 16),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedAnswer(f"header: {error!r}") from error


def log_of(answer: Mapping[str, Any]) -> Log:
    """Return a log from a node's JSON.

    Raises:
        MalformedAnswer: A field is missing or malformed.
    """
    try:
        return Log(
            address=Address(answer["address"].lower()),
            topics=tuple(_hash(topic) for topic in answer["topics"]),
            data=bytes.fromhex(answer["data"][2:]).hex(),
            block_hash=_block_hash(answer["blockHash"]),
            block_number=_number(answer["blockNumber"]),
            index=_number(answer["logIndex"]),
            tx_hash=answer["transactionHash"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedAnswer(f"log: {error!r}") from error
