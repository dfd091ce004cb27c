"""Addresses in any spelling, and pools where factories really put them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.errors import ClientError
from rtserver.domain.ids import Address
from rtserver.protocols.addresses import checksum, create2_pool, parse_address, raw
from rtserver.protocols.registry import adapters
from rtserver.protocols.uniswap_v3.deployments import DEPLOYMENTS, POOL_INIT_CODE_HASH

# Source: EIP-55, test cases.
EIP_55 = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]
USDC = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"
WETH = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
FACTORY = "0x1F98431c8aD98523631AE4a59f267346ea31F984"


@pytest.mark.parametrize("spelled", EIP_55)
def test_eip_55(spelled: str) -> None:
    assert checksum(Address(spelled.lower())) == spelled
    for text in (spelled, spelled.lower(), "0x" + spelled[2:].upper(), "0X" + spelled[2:].upper()):
        assert parse_address(text) == spelled.lower()


def test_a_typing_error_in_mixed_case_is_noticed() -> None:
    with pytest.raises(ClientError, match=r"owner .* wrong EIP-55 checksum"):
        parse_address("0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed", what="owner")


@pytest.mark.parametrize(
    "text",
    ["", "0x", "52908400098527886E0F7030069857D2E4169EE7", "0x" + "0" * 39, "0x" + "0" * 41, "0x" + "g" * 40,
     " 0x" + "0" * 40, "0x" + "٠" * 40, "0x" + "0" * 40 + "\n"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ClientError, match="must be 0x followed by 40 hex digits") as caught:
        parse_address(text)
    assert caught.value.code == "bad_request"


@given(st.binary(min_size=20, max_size=20))
def test_any_twenty_bytes(data: bytes) -> None:
    address = parse_address("0x" + data.hex())
    assert raw(address) == data
    assert parse_address(checksum(address)) == address


@pytest.mark.parametrize(
    ("fee", "pool"),
    # Source: the pools of Ethereum mainnet.
    [
        (500, "0x88e6A0c2dDD26FEEb64F039a2c41296FcB3f5640"),
        (3000, "0x8ad599c3A0ff1De082011EFDDc58f1908eb6e6D8"),
        (10000, "0x7BeA39867e4169DBe237d55C8242a8f2fcDcc387"),
        (100, "0xE0554a476A092703abdB3Ef35c80e0D76d32939F"),
    ],
)
def test_pools_of_usdc_and_weth(fee: int, pool: str) -> None:
    factory, usdc, weth = map(parse_address, (FACTORY, USDC, WETH))
    assert create2_pool(factory, POOL_INIT_CODE_HASH, usdc, weth, fee) == pool.lower()
    assert create2_pool(factory, POOL_INIT_CODE_HASH, weth, usdc, fee) == pool.lower()


def test_known_deployments_are_spelled_right() -> None:
    assert set(DEPLOYMENTS) == {1, 10, 56, 137, 8453, 42161}
    for known in DEPLOYMENTS.values():
        for text in filter(None, (known.factory, known.position_manager, known.staker, *known.stablecoins)):
            assert checksum(parse_address(text)) == text


def test_the_adapter_is_found_and_knows_its_chains() -> None:
    adapter = adapters()["uniswap-v3"]
    assert set(adapter.deployments) == set(DEPLOYMENTS)
    assert adapter.deployments[1].chain_name == "ethereum"
    book = adapter.build(1, parse_address(FACTORY), parse_address(USDC), None, [])  # type: ignore[arg-type]
    assert book.kind == adapter.kind == "uniswap-v3"
