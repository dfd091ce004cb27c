"""The decode boundary: JSON in, values or a typed error out."""

import secrets
import sys
from typing import Any

import pytest

from rtserver.chain.decode import MalformedAnswer, header_of, log_of
from rtserver.domain.errors import RetryableError

HASH, PARENT = "0x" + "aB" * 32, "0x" + "cD" * 32
HEADER: dict[str, Any] = {
    "number": "0x10", "hash": HASH, "parentHash": PARENT, "timestamp": "0x65", "logsBloom": "0x" + "00" * 255 + "03",
}  # fmt: skip
LOG: dict[str, Any] = {
    "address": "0x" + "AB" * 20, "topics": ["0x" + "01" * 32], "data": "0x1234", "blockHash": HASH,
    "blockNumber": "0x10", "logIndex": "0x2", "transactionHash": "0x99",
}  # fmt: skip


def test_a_header_as_a_node_answers_it() -> None:
    header = header_of(HEADER)
    assert (header.number, header.timestamp, header.logs_bloom) == (16, 101, 3)
    assert (header.hash, header.parent_hash) == (HASH.lower(), PARENT.lower())
    assert header.ref.hash == header.hash


def test_a_header_as_web3_formats_it() -> None:
    formatted = {
        "number": 16,
        "hash": bytes.fromhex(HASH[2:]),
        "parentHash": bytes.fromhex(PARENT[2:]),
        "timestamp": 101,
        "logsBloom": bytes(255) + b"\x03",
    }
    assert header_of(formatted) == header_of(HEADER)


def test_a_blocks_hash_is_one_text_however_often_it_is_told() -> None:
    """It is kept by the block, its child and each event that is remembered, as several nodes told it."""
    header, child = header_of(HEADER), header_of({**HEADER, "hash": PARENT, "parentHash": HASH})
    assert header.hash is header_of(dict(HEADER)).hash
    assert child.parent_hash is header.hash
    assert log_of(LOG).block_hash is header.hash


def test_a_blocks_hash_is_none_of_pythons_names() -> None:
    """Their table doubles by megabytes after some ten thousand blocks and never shrinks."""
    name = "0x" + secrets.token_hex(32)
    header = header_of({**HEADER, "hash": name})
    again = "".join(header.hash)
    assert sys.intern(again) is not header.hash


def test_without_a_bloom_nothing_is_excluded() -> None:
    assert header_of({**HEADER, "logsBloom": None}).logs_bloom == 2**2048 - 1
    assert header_of({key: value for key, value in HEADER.items() if key != "logsBloom"}).logs_bloom == 2**2048 - 1


def test_a_log() -> None:
    log = log_of(LOG)
    assert (log.address, log.data, log.block_number, log.index) == ("0x" + "ab" * 20, "1234", 16, 2)
    assert log.block_hash == HASH.lower()


@pytest.mark.parametrize("field", ["number", "hash", "parentHash", "timestamp"])
@pytest.mark.parametrize("value", [None, "zz", [], {}])
def test_a_malformed_header_is_the_node_s_fault(field: str, value: object) -> None:
    with pytest.raises(MalformedAnswer) as caught:
        header_of({**HEADER, field: value})
    assert isinstance(caught.value, RetryableError)
    with pytest.raises(MalformedAnswer):
        header_of({key: kept for key, kept in HEADER.items() if key != field})


@pytest.mark.parametrize("field", list(LOG))
def test_a_malformed_log(field: str) -> None:
    with pytest.raises(MalformedAnswer):
        log_of({key: kept for key, kept in LOG.items() if key != field})
    if field != "transactionHash":
        with pytest.raises(MalformedAnswer):
            log_of({**LOG, field: None})
