"""Selectors, topics and fixed layouts against a general ABI coder."""

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.ids import Address, Tick, TokenId
from rtserver.protocols.uniswap_v3 import events as ev
from rtserver.protocols.uniswap_v3 import reads

MANAGER = Address("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed")
OWNER = Address("0x" + "ab" * 20)
TICKS = st.integers(-887272, 887272).map(Tick)
U256 = st.integers(0, 2**256 - 1)
U128 = st.integers(0, 2**128 - 1)


def _selector(signature: str) -> bytes:
    return bytes(keccak(signature.encode())[:4])


@pytest.mark.parametrize(
    ("data", "signature"),
    [
        (reads.SLOT0, "slot0()"),
        (reads.LIQUIDITY, "liquidity()"),
        (reads.GROWTH0, "feeGrowthGlobal0X128()"),
        (reads.GROWTH1, "feeGrowthGlobal1X128()"),
        (reads.TOKEN0, "token0()"),
        (reads.TOKEN1, "token1()"),
        (reads.FEE, "fee()"),
        (reads.nft_call(MANAGER, TokenId(1))[1][:4], "positions(uint256)"),
        (reads.owner_call(MANAGER, TokenId(1))[1][:4], "ownerOf(uint256)"),
        (reads.balance_call(MANAGER, OWNER)[1][:4], "balanceOf(address)"),
        (reads.token_of_owner_call(MANAGER, OWNER, 1)[1][:4], "tokenOfOwnerByIndex(address,uint256)"),
        (reads.tick_call(MANAGER, Tick(1))[1][:4], "ticks(int24)"),
        (reads.core_call(MANAGER, b"")[1][:4], "positions(bytes32)"),
    ],
)
def test_selectors(data: bytes, signature: str) -> None:
    assert data == _selector(signature)


@pytest.mark.parametrize(
    ("topic", "signature"),
    [
        (ev.SWAP, "Swap(address,address,int256,int256,uint160,uint128,int24)"),
        (ev.MINT, "Mint(address,address,int24,int24,uint128,uint256,uint256)"),
        (ev.BURN, "Burn(address,int24,int24,uint128,uint256,uint256)"),
        (ev.COLLECT_POOL, "Collect(address,address,int24,int24,uint128,uint128)"),
        (ev.FLASH, "Flash(address,address,uint256,uint256,uint256,uint256)"),
        (ev.INITIALIZE, "Initialize(uint160,int24)"),
        (ev.INCREASE_LIQUIDITY, "IncreaseLiquidity(uint256,uint128,uint256,uint256)"),
        (ev.DECREASE_LIQUIDITY, "DecreaseLiquidity(uint256,uint128,uint256,uint256)"),
        (ev.COLLECT_NFT, "Collect(uint256,address,uint256,uint256)"),
        (ev.TRANSFER, "Transfer(address,address,uint256)"),
        (ev.POOL_CREATED, "PoolCreated(address,address,uint24,int24,address)"),
    ],
)
def test_topics(topic: str, signature: str) -> None:
    assert topic == "0x" + keccak(signature.encode()).hex()


@given(TICKS, U256)
def test_arguments_are_abi_encoded(tick: Tick, number: int) -> None:
    assert reads.tick_call(MANAGER, tick)[1][4:] == encode(["int24"], [tick])
    assert reads.nft_call(MANAGER, TokenId(number))[1][4:] == encode(["uint256"], [number])
    enumerate_call = reads.token_of_owner_call(MANAGER, OWNER, number)
    assert enumerate_call == (MANAGER, enumerate_call[1][:4] + encode(["address", "uint256"], [OWNER, number]))


@given(TICKS, TICKS)
def test_the_core_key_is_packed(lower: Tick, upper: Tick) -> None:
    packed = bytes.fromhex(MANAGER[2:]) + encode(["int24"], [lower])[29:] + encode(["int24"], [upper])[29:]
    assert reads.core_key(MANAGER, lower, upper) == keccak(packed)


@given(TICKS, TICKS, U128, U256, U256, U128, U128)
def test_nft_positions(
    lower: Tick, upper: Tick, liquidity: int, last0: int, last1: int, owed0: int, owed1: int
) -> None:
    types = ["uint96", "address", "address", "address", "uint24", "int24", "int24", "uint128", "uint256", "uint256",
             "uint128", "uint128"]  # fmt: skip
    values = [7, OWNER, MANAGER, OWNER, 3000, lower, upper, liquidity, last0, last1, owed0, owed1]
    read = reads.decode_nft(encode(types, values))
    assert read == reads.NftPosition(MANAGER, OWNER, 3000, lower, upper, liquidity, last0, last1, owed0, owed1)


@given(TICKS, st.integers(0, 2**160 - 1), U128, U256, U256)
def test_pool_words(tick: Tick, price: int, liquidity: int, last0: int, last1: int) -> None:
    slot0 = encode(["uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"], [price, tick, 1, 2, 3, 4, True])
    assert reads.decode_slot0(slot0) == (price, tick)
    types = ["uint128", "int128", "uint256", "uint256", "int56", "uint160", "uint32", "bool"]
    assert reads.decode_tick(encode(types, [liquidity, -5, last0, last1, -1, 7, 1, True])) == (last0, last1, 7)
    core = encode(["uint128", "uint256", "uint256", "uint128", "uint128"], [liquidity, last0, last1, 5, 6])
    assert reads.decode_core(core) == reads.CorePosition(liquidity, last0, last1, 5, 6)
    assert reads.decode_uint(encode(["uint256"], [last0])) == last0


def test_no_answer_means_there_is_nothing() -> None:
    for nothing in (None, b"", b"\0" * 31):
        assert reads.decode_slot0(nothing) is None
        assert reads.decode_nft(nothing) is None
        assert reads.decode_uint(nothing) is None
        assert reads.decode_address(nothing) is None
        assert reads.decode_tick(nothing) == (0, 0, 0)
        assert reads.decode_core(nothing) == reads.CorePosition(0, 0, 0, 0, 0)


@given(TICKS, U256)
def test_words_of_logs(tick: Tick, number: int) -> None:
    data = encode(["uint256", "int24"], [number, tick]).hex()
    assert ev.word(data, 0) == number
    assert ev.word_int24(data, 1) == tick
    assert ev.topic_int24("0x" + encode(["int24"], [tick]).hex()) == tick
    assert ev.topic_address("0x" + encode(["address"], [OWNER]).hex()) == OWNER
