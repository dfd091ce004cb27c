"""Many calls in one: the loop's code run on a tiny EVM, and every way's answers decoded alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from hypothesis import given
from hypothesis import strategies as st

from rtserver.chain.evm_batch import MAX_CALLS, MULTICALL3, RAN_OUT, Way, decode_answer, encode_call
from rtserver.domain.ids import Address
from rtserver.protocols.base import Call

from . import tiny_evm

BLOCK = {"blockHash": "0x" + "11" * 32}
# Longer answers are cut by the loop.
CUT = 1024
ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: Address("0x" + raw.hex()))
# A call and what the contract does with it.
SCRIPT = st.lists(st.tuples(ADDRESSES, st.binary(max_size=120), st.booleans(), st.binary(max_size=1500)), max_size=12)


def _play(way: Way, script: list[tuple[Address, bytes, bool, bytes]]) -> tuple[Sequence[object], list[Call]]:
    """Encode the calls, run them as a node would, decode the answer; return it and the calls that were seen."""
    calls = [(address, data) for address, data, _, _ in script]
    _, (transaction, block, *override) = encode_call(way, calls, BLOCK)
    assert block == BLOCK
    seen: list[Call] = []

    def answer(address: int, data: bytes) -> tuple[bool, bytes]:
        _, _, success, returned = script[len(seen)]
        seen.append((Address(f"0x{address:040x}"), data))
        return success, returned

    data = bytes.fromhex(transaction["data"][2:])
    if way is Way.OVERRIDE:
        (code,) = override[0].values()
        assert list(override[0]) == [transaction["to"]]
        result = tiny_evm.run(bytes.fromhex(code["code"][2:]), data, answer)
    else:
        assert "to" not in transaction
        result = tiny_evm.run(data, b"", answer)
    return decode_answer(way, "0x" + result.hex(), len(calls)), seen


@pytest.mark.parametrize("way", [Way.OVERRIDE, Way.DEPLOYLESS])
@given(script=SCRIPT)
def test_the_loop_calls_each_and_tells_what_came_back(
    way: Way, script: list[tuple[Address, bytes, bool, bytes]]
) -> None:
    results, seen = _play(way, script)
    assert seen == [(address, data) for address, data, _, _ in script]
    assert results == [returned[:CUT] if success else None for _, _, success, returned in script]


@pytest.mark.parametrize("way", [Way.OVERRIDE, Way.DEPLOYLESS])
def test_a_full_batch(way: Way) -> None:
    target = Address("0x" + "ab" * 20)
    script = [(target, bytes([index % 256]) * 36, index % 3 != 0, bytes(387)) for index in range(MAX_CALLS[way])]
    results, _ = _play(way, script)
    assert len(results) == MAX_CALLS[way]
    assert results[0] is None
    assert results[1] == bytes(387)
    _, (transaction, *_) = encode_call(way, [(target, data) for _, data, _, _ in script], BLOCK)
    if way is Way.DEPLOYLESS:
        assert len(transaction["data"]) // 2 < 49_152, "init code has a limit"
        assert MAX_CALLS[way] * (387 + 3) < 24_576, "so has what it returns"


@pytest.mark.parametrize("way", [Way.OVERRIDE, Way.DEPLOYLESS])
def test_what_spent_its_gas_is_not_taken_for_reverted(way: Way) -> None:
    """A call that fails for lack of gas is told apart from one that reverts: the one may be a living position."""
    hungry, reverts, fine = (Address("0x" + two * 20) for two in ("11", "22", "33"))
    calls: list[Call] = [(fine, b"a"), (hungry, b"b"), (reverts, b"c"), (fine, b"d")]
    _, (transaction, _, *override) = encode_call(way, calls, BLOCK)
    code = bytes.fromhex((override[0][transaction["to"]]["code"] if override else transaction["data"])[2:])
    result = tiny_evm.run(
        code,
        bytes.fromhex(transaction["data"][2:]) if override else b"",
        lambda address, data: (f"0x{address:040x}" != reverts, data),
        cost=lambda address, data: 600_000 if f"0x{address:040x}" == hungry else 5000,
    )
    assert decode_answer(way, "0x" + result.hex(), 4) == [b"a", RAN_OUT, None, b"d"]


@given(gas=st.integers(560_000, 3_000_000))
def test_with_little_gas_fewer_are_answered_and_none_wrongly(gas: int) -> None:
    calls: list[Call] = [(Address("0x" + "11" * 20), bytes([index])) for index in range(10)]
    _, (transaction, _, override) = encode_call(Way.OVERRIDE, calls, BLOCK)
    (code,) = override.values()
    result = tiny_evm.run(
        bytes.fromhex(code["code"][2:]),
        bytes.fromhex(transaction["data"][2:]),
        lambda _, data: (True, data),
        gas=gas,
        cost=lambda *_: 450_000,
    )
    found = decode_answer(Way.OVERRIDE, "0x" + result.hex(), 10)
    assert found == [data for _, data in calls[: len(found)]]


def test_multicall3() -> None:
    calls: list[Call] = [(Address("0x" + "01" * 20), b"one"), (Address("0x" + "02" * 20), b"")]
    method, (transaction, block) = encode_call(Way.MULTICALL3, calls, BLOCK)
    assert (method, transaction["to"], block) == ("eth_call", MULTICALL3, BLOCK)
    data = bytes.fromhex(transaction["data"][2:])
    (tuples,) = decode(["(address,bool,bytes)[]"], data[4:])
    assert tuples == (("0x" + "01" * 20, True, b"one"), ("0x" + "02" * 20, True, b""))
    answer = encode(["(bool,bytes)[]"], [[(True, b"yes"), (False, b"revert reason"), (False, b"")]])
    # Without a word it may have been the neighbours that left no gas.
    assert decode_answer(Way.MULTICALL3, "0x" + answer.hex(), 3) == [b"yes", None, RAN_OUT]


def test_one_by_one() -> None:
    target = Address("0x" + "01" * 20)
    method, params = encode_call(Way.JSON_BATCH, [(target, b"\x12")], BLOCK)
    assert (method, params) == ("eth_call", [{"to": target, "data": "0x12"}, BLOCK])
    assert decode_answer(Way.JSON_BATCH, "0x1234", 1) == [b"\x12\x34"]
    assert decode_answer(Way.JSON_BATCH, "0x", 1) == [b""]


@pytest.mark.parametrize("way", [Way.OVERRIDE, Way.DEPLOYLESS, Way.MULTICALL3])
@pytest.mark.parametrize("answer", ["0x", "0x00", "0x01ffff", "0x0100", "0x" + "00" * 64, "0x" + "ff" * 96, "0xzz", ""])
def test_an_answer_that_does_not_fit_is_noticed(way: Way, answer: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message differs by way
        decode_answer(way, answer, 1000)


@given(answer=st.binary(max_size=200), count=st.integers(1, 20))
def test_any_bytes_decode_or_are_refused(answer: bytes, count: int) -> None:
    for way in (Way.OVERRIDE, Way.MULTICALL3):
        results: list[Any] = []
        try:
            results = decode_answer(way, "0x" + answer.hex(), count)
        except ValueError:
            continue
        assert 0 < len(results) <= count
