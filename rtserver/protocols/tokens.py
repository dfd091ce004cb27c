"""What an ERC-20 says about itself, made safe: many say it wrongly, some on purpose. Pure."""

import unicodedata
from typing import Final

from ..domain.ids import Address
from .addresses import checksum
from .base import Call

__all__ = ["MAX_DECIMALS", "decimals_call", "decode_decimals", "decode_symbol", "symbol_call"]

# 2^256 has 78 digits: a token with more decimals has no amount that could be shown. Some claim 2^256-1.
MAX_DECIMALS: Final = 77
# Longer symbols exist only to deceive or to break layouts.
MAX_SYMBOL: Final = 32

_SYMBOL: Final = bytes.fromhex("95d89b41")
_DECIMALS: Final = bytes.fromhex("313ce567")


def symbol_call(token: Address) -> Call:
    """Return the call of symbol()."""
    return token, _SYMBOL


def decimals_call(token: Address) -> Call:
    """Return the call of decimals()."""
    return token, _DECIMALS


def decode_symbol(token: Address, result: bytes | None) -> str:
    """Return a printable symbol: string, else bytes32, else the shortened address.

    Control, format and unassigned characters (also bidirectional overrides) are left out: they serve to
    make one token look like another. Markup stays as it is: text is shown as text.
    """
    text = ""
    if result is not None:
        payload = result
        if len(result) >= 64 and int.from_bytes(result[:32], "big") == 32:
            length = int.from_bytes(result[32:64], "big")
            payload = result[64 : 64 + min(length, 4 * MAX_SYMBOL)]
        elif len(result) >= 32:
            payload = result[:32].split(b"\0", 1)[0]
        decoded = payload.decode("utf-8", "ignore")
        text = "".join(c for c in decoded if unicodedata.category(c)[0] != "C").strip()[:MAX_SYMBOL]
    if text:
        return text
    spelled = checksum(token)
    return f"{spelled[:6]}…{spelled[-4:]}"


def decode_decimals(result: bytes | None) -> int | None:
    """Return decimals, or None where the token gives no usable answer (amounts then stay raw)."""
    if result is None or len(result) < 32:
        return None
    value = int.from_bytes(result[:32], "big")
    return value if value <= MAX_DECIMALS else None
