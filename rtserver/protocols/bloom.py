"""Whether a block can hold logs of an address, from its header alone. No call is needed where it can't."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from eth_utils.crypto import keccak

from ..domain.ids import Address
from .addresses import raw

__all__ = ["ALL_BITS", "may_hold"]

ALL_BITS: Final = (1 << 2048) - 1


@lru_cache(maxsize=65_536)  # A keccak costs 5 µs; the same pools are asked for in every block.
def _mask(address: Address) -> int:
    """Return the three bits that an address sets. Source: Ethereum yellow paper, section 4.3.1."""
    digest = keccak(raw(address))
    mask = 0
    for offset in (0, 2, 4):
        mask |= 1 << (int.from_bytes(digest[offset : offset + 2], "big") & 2047)
    return mask


def may_hold(logs_bloom: int, addresses: Iterable[Address]) -> bool:
    """Return whether any of the addresses may have emitted a log in the block. Never wrongly False."""
    return any(logs_bloom & mask == mask for mask in map(_mask, addresses))
