"""Logs that can't be what they claim are refused before any of their block is folded."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from rtserver.domain.errors import RetryableError
from rtserver.protocols.uniswap_v3 import events as ev


def test_whole_logs_pass() -> None:
    data = encode(["int256", "int256", "uint160", "uint128", "int24"], [1, -1, 2, 3, -4]).hex()
    ev.check_shape([ev.SWAP, "0x" + "00" * 32, "0x" + "00" * 32], data)
    ev.check_shape(["0x" + keccak(text="Unknown()").hex()], "")


@pytest.mark.parametrize(
    ("topics", "words"),
    [([], 5), ([ev.SWAP], 5), ([ev.SWAP, "0x0", "0x0"], 4), ([ev.MINT] * 4, 0), ([ev.COLLECT_NFT], 3)],
)
def test_short_logs_are_refused(topics: list[str], words: int) -> None:
    with pytest.raises(RetryableError, match="too short"):
        ev.check_shape(topics, "00" * 32 * words)
