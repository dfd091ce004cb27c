"""The checksum by which a client proves its copy: Σ CRC32(key ‖ canonical JSON) mod 2^32.

Canonical JSON: keys sorted at every level, no spaces, non-ASCII as is. A sum, so that a changed object
costs one subtraction and one addition.
"""

from collections.abc import Mapping
from typing import Final
from zlib import crc32

import orjson

from ..domain.diff import JsonObject

__all__ = ["MASK_32", "checksum_of", "object_crc"]

MASK_32: Final = (1 << 32) - 1


def object_crc(key: str, value: JsonObject) -> int:
    """Return one object's summand."""
    return crc32(key.encode() + orjson.dumps(value, option=orjson.OPT_SORT_KEYS))


def checksum_of(state: Mapping[str, JsonObject]) -> int:
    """Return the checksum of a whole state."""
    return sum(object_crc(key, value) for key, value in state.items()) & MASK_32
