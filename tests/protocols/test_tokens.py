"""What tokens say of themselves, and what is shown instead when they shouldn't be believed."""

import unicodedata

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from rtserver.domain.ids import Address
from rtserver.protocols.tokens import (
    MAX_DECIMALS,
    MAX_SYMBOL,
    decimals_call,
    decode_decimals,
    decode_symbol,
    symbol_call,
)

TOKEN = Address("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed")
SHORT = "0x5aAe…eAed"


def _string(text: str | bytes) -> bytes:
    return encode(["bytes"], [text.encode() if isinstance(text, str) else text])


@pytest.mark.parametrize(
    ("answer", "symbol"),
    [
        (_string("WETH"), "WETH"),
        (_string("USD₮0"), "USD₮0"),
        (_string("  spaced  "), "spaced"),
        (_string(""), SHORT),
        (_string("\x00\x00"), SHORT),
        (_string("evil\u202etxt"), "eviltxt"),
        (_string("a\u200bb\ufeffc"), "abc"),
        (_string("line\nbreak"), "linebreak"),
        (_string("<b>&amp;</b>"), "<b>&amp;</b>"),
        (_string("x" * 500), "x" * MAX_SYMBOL),
        (_string(b"\xff\xfeAB"), "AB"),
        (b"MKR".ljust(32, b"\0"), "MKR"),
        (b"\0" * 32, SHORT),
        ((32).to_bytes(32, "big") + (2**255).to_bytes(32, "big") + b"LIE".ljust(32, b"\0"), "LIE"),
        ((32).to_bytes(32, "big") + (3).to_bytes(32, "big"), SHORT),
        (b"short", "short"),
        (b"", SHORT),
        (None, SHORT),
    ],
)
def test_symbols(answer: bytes | None, symbol: str) -> None:
    assert decode_symbol(TOKEN, answer) == symbol


@given(st.binary(max_size=300))
def test_any_answer_gives_something_short_and_printable(answer: bytes) -> None:
    symbol = decode_symbol(TOKEN, answer)
    assert 0 < len(symbol) <= MAX_SYMBOL
    assert not any(unicodedata.category(c).startswith("C") for c in symbol)


@pytest.mark.parametrize(
    ("answer", "decimals"),
    [
        ((18).to_bytes(32, "big"), 18),
        ((0).to_bytes(32, "big"), 0),
        (MAX_DECIMALS.to_bytes(32, "big"), MAX_DECIMALS),
        ((MAX_DECIMALS + 1).to_bytes(32, "big"), None),
        (b"\xff" * 32, None),
        ((6).to_bytes(32, "big") + b"more", 6),
        (b"\x06", None),
        (b"", None),
        (None, None),
    ],
)
def test_decimals(answer: bytes | None, decimals: int | None) -> None:
    assert decode_decimals(answer) == decimals


def test_calls() -> None:
    assert symbol_call(TOKEN) == (TOKEN, bytes.fromhex("95d89b41"))
    assert decimals_call(TOKEN) == (TOKEN, bytes.fromhex("313ce567"))
