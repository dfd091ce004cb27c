"""The bloom filter never hides a log, and shows most others."""

from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.ids import Address
from rtserver.protocols.bloom import ALL_BITS, may_hold

ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: Address("0x" + raw.hex()))


def _bloom_of(items: list[bytes]) -> int:
    """Return the filter as section 4.3.1 of the yellow paper builds it: byte by byte, from the other end."""
    bloom = bytearray(256)
    for item in items:
        digest = keccak(item)
        for pair in range(0, 6, 2):
            bit = ((digest[pair] << 8) | digest[pair + 1]) % 2048
            bloom[255 - bit // 8] |= 1 << (bit % 8)
    return int.from_bytes(bloom, "big")


@given(st.lists(ADDRESSES, max_size=6), st.lists(st.binary(min_size=32, max_size=32), max_size=6), ADDRESSES)
def test_never_wrongly_false(emitters: list[Address], topics: list[bytes], other: Address) -> None:
    bloom = _bloom_of([bytes.fromhex(address[2:]) for address in emitters] + topics)
    for address in emitters:
        assert may_hold(bloom, [other, address])
    assert may_hold(ALL_BITS, [other])
    assert not may_hold(0, [other])
    assert not may_hold(bloom, [])


def test_mostly_false_where_there_is_nothing() -> None:
    bloom = _bloom_of([bytes([index]) * 32 for index in range(100)])
    absent = [Address("0x" + bytes([index]).hex() * 20) for index in range(256)]
    wrongly = sum(may_hold(bloom, [address]) for address in absent)
    assert wrongly < 16
