"""Many static calls in one eth_call: a loop in EVM code, and three other ways where a node won't run it.

`Way.OVERRIDE` runs the loop as the code of an address that a state override puts there; `Way.DEPLOYLESS`
runs it as init code; `Way.MULTICALL3` uses the deployed contract; `Way.JSON_BATCH` sends the calls one by one
in one JSON-RPC batch. All answer alike: each call's data, None where it reverted, `RAN_OUT` where only a try of
its own can tell: what fails for lack of gas must not read as a position that was burned. Pure; sends nothing.
"""

from collections.abc import Sequence
from enum import Enum, StrEnum
from typing import Any, Final

from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from eth_abi.exceptions import DecodingError

from ..protocols.addresses import raw
from ..protocols.base import Call

__all__ = ["MAX_CALLS", "MAX_RESULT", "MULTICALL3", "RAN_OUT", "Way", "decode_answer", "encode_alone", "encode_call"]


class _RanOut(Enum):
    RAN_OUT = "ran out"


# The call failed with all of its gas spent, or without a word where others may have spent it: ask it alone.
RAN_OUT: Final = _RanOut.RAN_OUT


class Way(StrEnum):
    """How calls are batched, best first."""

    OVERRIDE = "override"
    DEPLOYLESS = "deployless"
    MULTICALL3 = "multicall3"
    JSON_BATCH = "json-batch"


# Gas: a read costs 5,000 to 40,000, and nodes cap an eth_call at 30 to 50 million.
# Deployless answers are at most 24,576 bytes, a read's answer is at most 387.
MAX_CALLS: Final = {Way.OVERRIDE: 800, Way.DEPLOYLESS: 60, Way.MULTICALL3: 400, Way.JSON_BATCH: 100}
MULTICALL3: Final = "0xca11bde05977b3631167028862be2a173976ca11"
_AGGREGATE3: Final = bytes.fromhex("82ad56cb")

# Any address without code will do; its code is overridden for the one call.
_LOOP_ADDRESS: Final = "0x00000000000000000000000000000000726c6f6f"
# Gas of one sub-call: a hostile token may burn this much, not the whole batch.
_CALL_GAS: Final = 500_000
# With less left the loop stops and what is left over is asked again: a call forwards 63/64 of what there is at most.
_GAS_LEFT: Final = 540_000
# Gas of a call on its own: what fails with this much fails.
_ALONE_GAS: Final = 10_000_000
# Longer answers are cut: no read here has one, only hostile tokens do.
MAX_RESULT: Final = 1024

_OPCODES: Final = {
    "ADD": 0x01, "MUL": 0x02, "SUB": 0x03, "LT": 0x10, "ISZERO": 0x15, "XOR": 0x18, "SHL": 0x1B, "SHR": 0x1C,
    "CALLDATASIZE": 0x36, "CALLDATACOPY": 0x37, "CODESIZE": 0x38, "CODECOPY": 0x39, "RETURNDATASIZE": 0x3D,
    "RETURNDATACOPY": 0x3E, "POP": 0x50, "MLOAD": 0x51, "MSTORE": 0x52, "MSTORE8": 0x53, "JUMP": 0x56, "GAS": 0x5A,
    "JUMPI": 0x57, "JUMPDEST": 0x5B, "DUP1": 0x80, "DUP2": 0x81, "DUP3": 0x82, "DUP4": 0x83, "DUP5": 0x84,
    "DUP6": 0x85, "DUP7": 0x86, "SWAP1": 0x90, "SWAP3": 0x92, "RETURN": 0xF3, "STATICCALL": 0xFA,
}  # fmt: skip

# Input: for each call 20 bytes of address, 2 of length, the calldata. Output: for each call 1 byte (0 reverted,
# 1 done, 2 failed with its gas spent), 2 of length, the data; fewer than were asked when the gas runs low.
# SIZE is the input's size; the stack is named at the right, its top last.
_LOOP: Final = f"""
    COPY_INPUT_TO_0
    SIZE                                     # out
    0                                        # out in
  loop:
    SIZE DUP2 LT ISZERO @end JUMPI           # out in
    {_GAS_LEFT} GAS LT @end JUMPI            # out in
    DUP1 20 ADD MLOAD 240 SHR                # out in len
    GAS                                      # out in len gas
    0 0 DUP4 DUP6 22 ADD DUP7 MLOAD 96 SHR   # out in len gas 0 0 len args address
    {_CALL_GAS} STATICCALL                   # out in len gas success
    SWAP1 GAS SWAP1 SUB                      # out in len success used
    {_CALL_GAS} SWAP1 LT ISZERO              # out in len success spent
    DUP2 ISZERO MUL 2 MUL ADD                # out in len status
    DUP4 MSTORE8                             # out in len
    RETURNDATASIZE {MAX_RESULT} DUP2 DUP2 LT SWAP1 DUP3 XOR MUL XOR   # out in len n = min(size, max)
    DUP1 240 SHL DUP5 1 ADD MSTORE           # out in len n
    DUP1 0 DUP6 3 ADD RETURNDATACOPY         # out in len n
    3 ADD DUP4 ADD SWAP3 POP                 # out' in len
    22 ADD ADD                               # out' in'
    @loop JUMP
  end:
    POP SIZE SWAP1 SUB SIZE RETURN
"""


def _assemble(source: str, *, deployless: bool) -> bytes:
    """Return the code; jump targets and its own length are two-byte pushes, so one pass fixes all sizes."""
    size = "SELF CODESIZE SUB" if deployless else "CALLDATASIZE"
    copy = f"{size} SELF 0 CODECOPY" if deployless else "CALLDATASIZE 0 0 CALLDATACOPY"
    source = "\n".join(line.split("#")[0] for line in source.splitlines())
    words = source.replace("COPY_INPUT_TO_0", copy).replace(" SIZE ", f" {size} ").replace(" SIZE\n", f" {size}\n")
    code, labels, patches = bytearray(), {}, []
    for word in words.split():
        if word.endswith(":"):
            labels[word[:-1]] = len(code)
            code.append(_OPCODES["JUMPDEST"])
        elif word == "SELF" or word.startswith("@"):
            patches.append((len(code) + 1, word.lstrip("@")))
            code += b"\x61\0\0"
        elif word.isdigit():
            value = int(word)
            width = max((value.bit_length() + 7) // 8, 1)
            code += bytes([0x5F + width]) + value.to_bytes(width, "big")
        else:
            code.append(_OPCODES[word])
    labels["SELF"] = len(code)
    for offset, label in patches:
        code[offset : offset + 2] = labels[label].to_bytes(2, "big")
    return bytes(code)


_RUNTIME: Final = _assemble(_LOOP, deployless=False)
_RUNTIME_HEX: Final = "0x" + _RUNTIME.hex()
_INIT: Final = _assemble(_LOOP, deployless=True)


def _pack(calls: Sequence[Call]) -> bytes:
    return b"".join(raw(target) + len(data).to_bytes(2, "big") + data for target, data in calls)


def encode_call(way: Way, calls: Sequence[Call], block: Any) -> tuple[str, list[Any]]:
    """Return the eth_call request that does all calls at a block (a tag or an EIP-1898 object).

    `Way.JSON_BATCH` takes exactly one call here: the batch is made by the transport.
    """
    match way:
        case Way.OVERRIDE:
            to = {"to": _LOOP_ADDRESS, "data": "0x" + _pack(calls).hex()}
            return "eth_call", [to, block, {_LOOP_ADDRESS: {"code": _RUNTIME_HEX}}]
        case Way.DEPLOYLESS:
            return "eth_call", [{"data": "0x" + (_INIT + _pack(calls)).hex()}, block]
        case Way.MULTICALL3:
            tuples = [(target, True, data) for target, data in calls]
            data = _AGGREGATE3 + abi_encode(["(address,bool,bytes)[]"], [tuples])
            return "eth_call", [{"to": MULTICALL3, "data": "0x" + data.hex()}, block]
        case Way.JSON_BATCH:
            ((target, data),) = calls
            return "eth_call", [{"to": target, "data": "0x" + data.hex()}, block]


def encode_alone(call: Call, block: Any) -> tuple[str, list[Any]]:
    """Return the eth_call request for one call with gas enough for anything honest."""
    target, data = call
    return "eth_call", [{"to": target, "data": "0x" + data.hex(), "gas": hex(_ALONE_GAS)}, block]


def decode_answer(way: Way, answer: str, count: int) -> list[bytes | None | _RanOut]:
    """Return each call's data, None where it reverted, RAN_OUT where that can't be told.

    May be shorter than `count`, never empty: the gas of the whole was up, and the rest is to be asked again.

    Raises:
        ValueError: The answer holds no such results: this way does not work here.
    """
    data = bytes.fromhex(answer[2:])
    if way is Way.JSON_BATCH:
        return [data[:MAX_RESULT]]
    if way is Way.MULTICALL3:
        try:
            (pairs,) = abi_decode(["(bool,bytes)[]"], data)
        except (DecodingError, OverflowError) as error:
            raise ValueError(f"not an answer of Multicall3: {error}") from error
        if len(pairs) != count:
            raise ValueError(f"{len(pairs)} results for {count} calls")
        # All share one gas: who fails without a word may only have come late.
        return [bytes(result) if success else None if result else RAN_OUT for success, result in pairs]
    results: list[bytes | None | _RanOut] = []
    offset = 0
    while offset + 3 <= len(data):
        end = offset + 3 + int.from_bytes(data[offset + 1 : offset + 3], "big")
        match data[offset]:
            case 0:
                results.append(None)
            case 1:
                results.append(data[offset + 3 : end])
            case 2:
                results.append(RAN_OUT)
            case status:
                raise ValueError(f"no such status: {status}")
        offset = end
    if len(results) > count or (count and not results) or offset != len(data):
        raise ValueError(f"{len(results)} results for {count} calls")
    return results
