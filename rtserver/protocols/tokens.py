"""What an ERC-20 says about itself, made safe: many say it wrongly, some on purpose. Pure."""

import unicodedata
from typing import Final

from ..domain.ids import Address
from .addresses import checksum
from .base import Call

__all__ = ["MAX_DECIMALS", "decimals_call", "decode_decimals", "decode_symbol", "symbol_call", "token_flags"]

# 2^256 has 78 digits: a token with more decimals has no amount that could be shown. Some claim 2^256-1.
MAX_DECIMALS: Final = 77
# Longer symbols exist only to deceive or to break layouts.
MAX_SYMBOL: Final = 32
# What a page could take for markup, if it were careless.
_MARKUP: Final = frozenset("<>&\"'`")

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
    text = "" if result is None else _printable(_told(result))
    if text:
        return text
    spelled = checksum(token)
    return f"{spelled[:6]}…{spelled[-4:]}"


def _told(result: bytes) -> bytes:
    """Return the bytes of a symbol, as many as could be shown; one more tells that it was cut."""
    if len(result) >= 64 and int.from_bytes(result[:32], "big") == 32:
        length = int.from_bytes(result[32:64], "big")
        return result[64 : 64 + min(length, 4 * MAX_SYMBOL + 1)]
    if len(result) >= 32:
        return result[:32].split(b"\0", 1)[0]
    return result


def _printable(told: bytes) -> str:
    decoded = told[: 4 * MAX_SYMBOL].decode("utf-8", "ignore")
    return "".join(c for c in decoded if unicodedata.category(c)[0] != "C").strip()[:MAX_SYMBOL]


def token_flags(symbol: bytes | None, decimals: bytes | None) -> list[str]:
    """Return what is odd about a token's answers to symbol() and decimals(), for whoever shows it.

    `noCode`: nothing answers at the address. `symbolMissing`: the address stands in its place. `symbolAltered`:
    something was left out or cut off. `symbolMarkup`: it could be taken for markup. `decimalsMissing`: no usable
    answer, amounts stay raw. Empty for an ordinary token; more flags may come.
    """
    flags = []
    if symbol == b"" and decimals == b"":
        flags.append("noCode")
    told = b"" if symbol is None else _told(symbol)
    shown = _printable(told)
    if not shown:
        flags.append("symbolMissing")
    elif shown.encode() != told:
        flags.append("symbolAltered")
    if not _MARKUP.isdisjoint(shown):
        flags.append("symbolMarkup")
    if decode_decimals(decimals) is None:
        flags.append("decimalsMissing")
    return flags


def decode_decimals(result: bytes | None) -> int | None:
    """Return decimals, or None where the token gives no usable answer (amounts then stay raw)."""
    if result is None or len(result) < 32:
        return None
    value = int.from_bytes(result[:32], "big")
    return value if value <= MAX_DECIMALS else None
