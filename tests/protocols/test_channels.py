"""Channel names: one spelling each, and a reason for whatever is not one."""

import pytest

from rtserver.domain.errors import ClientError
from rtserver.protocols.channels import (
    HeadChannel,
    OwnerChannel,
    PoolChannel,
    PositionChannel,
    RewardsChannel,
    parse_channel,
)

KNOWN = {1: frozenset({"uniswap-v3", "other"}), 10: frozenset({"uniswap-v3"})}
UNI = "0x1f9840a85d5aF5bf1D1762F925BDADdC4201F984"


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("head:1", HeadChannel, "head:1"),
        ("head:0010", HeadChannel, "head:10"),
        ("position:1:uniswap-v3:42", PositionChannel, "position:1:uniswap-v3:42"),
        ("position:1:uniswap-v3:0042", PositionChannel, "position:1:uniswap-v3:42"),
        (f"position:1:other:{2**256 - 1}", PositionChannel, f"position:1:other:{2**256 - 1}"),
        (f"owner:1:{UNI}", OwnerChannel, f"owner:1:{UNI}"),
        (f"owner:1:{UNI.lower()}", OwnerChannel, f"owner:1:{UNI}"),
        (f"owner:1:0x{UNI[2:].upper()}", OwnerChannel, f"owner:1:{UNI}"),
        (f"rewards:1:{UNI.lower()}", RewardsChannel, f"rewards:1:{UNI}"),
        (f"pool:10:{UNI.lower()}", PoolChannel, f"pool:10:{UNI}"),
    ],
)
def test_good_names(text: str, kind: type, name: str) -> None:
    channel = parse_channel(text, KNOWN)
    assert isinstance(channel, kind)
    assert channel.name == name
    assert parse_channel(channel.name, KNOWN) == channel


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "channels are"),
        (":", "channels are"),
        ("head", "chainId"),
        ("head:1:2", "channels are"),
        ("heads:1", "channels are"),
        ("HEAD:1", "channels are"),
        ("position:1:42", "channels are"),
        ("head:", "chainId must be a decimal number"),
        ("head:one", "chainId"),
        ("head:-1", "chainId"),
        ("head:1 ", "chainId"),
        ("head:١", "chainId"),
        ("head:0x1", "chainId"),
        ("head:" + "9" * 79, "chainId"),
        ("head:5", "served are 1, 10"),
        ("position:1:sushi:42", "served are other, uniswap-v3"),
        ("position:10:other:42", "served are uniswap-v3"),
        ("position:1:uniswap-v3:", "tokenId"),
        ("position:1:uniswap-v3:-1", "tokenId"),
        (f"position:1:uniswap-v3:{2**256}", "tokenId"),
        ("owner:1:", "owner must be 0x"),
        ("owner:1:vitalik.eth", "owner must be 0x"),
        ("owner:1:" + UNI[:-1], "owner must be 0x"),
        ("owner:1:" + UNI[:-1] + "g", "owner must be 0x"),
        ("owner:1:" + UNI[:-1] + "5", "checksum"),
        ("pool:1:" + UNI.replace("F", "f"), "checksum"),
        ("x" * 100_000, "channels are"),
    ],
)
def test_bad_names_say_why(text: str, says: str) -> None:
    with pytest.raises(ClientError, match=says) as caught:
        parse_channel(text, KNOWN)
    assert caught.value.code == "bad_channel"
    assert len(caught.value.message) < 400
