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
    token_flags,
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


SIX = (6).to_bytes(32, "big")


@pytest.mark.parametrize(
    ("symbol", "decimals", "flags"),
    [
        (_string("WETH"), SIX, []),
        (_string("USD₮0"), SIX, []),
        (b"MKR".ljust(32, b"\0"), SIX, []),
        (_string("x" * MAX_SYMBOL), SIX, []),
        (b"", b"", ["noCode", "symbolMissing", "decimalsMissing"]),
        (None, None, ["symbolMissing", "decimalsMissing"]),
        (None, SIX, ["symbolMissing"]),
        (_string("\u202e\0"), SIX, ["symbolMissing"]),
        (_string("a\u200bb"), SIX, ["symbolAltered"]),
        (_string(" WETH"), SIX, ["symbolAltered"]),
        (_string("x" * (MAX_SYMBOL + 1)), SIX, ["symbolAltered"]),
        (_string("€" * 4 * MAX_SYMBOL), SIX, ["symbolAltered"]),
        (_string(b"\xff\xfeAB"), SIX, ["symbolAltered"]),
        (_string("<img src=x>"), SIX, ["symbolMarkup"]),
        (_string("<script>\x1b"), None, ["symbolAltered", "symbolMarkup", "decimalsMissing"]),
        (_string("BIG"), b"\xff" * 32, ["decimalsMissing"]),
        (_string("BIG"), (MAX_DECIMALS + 1).to_bytes(32, "big"), ["decimalsMissing"]),
    ],
)
def test_flags(symbol: bytes | None, decimals: bytes | None, flags: list[str]) -> None:
    assert token_flags(symbol, decimals) == flags


@given(st.none() | st.binary(max_size=300), st.none() | st.binary(max_size=70))
def test_a_symbol_without_a_flag_is_what_the_token_says(symbol: bytes | None, decimals: bytes | None) -> None:
    flags = token_flags(symbol, decimals)
    shown = decode_symbol(TOKEN, symbol)
    assert ("symbolMissing" in flags) == (shown == SHORT)
    if not {"symbolMissing", "symbolAltered"} & set(flags):
        assert symbol is not None
        assert shown.encode() in symbol
    assert ("decimalsMissing" in flags) == (decode_decimals(decimals) is None)


def test_calls() -> None:
    assert symbol_call(TOKEN) == (TOKEN, bytes.fromhex("95d89b41"))
    assert decimals_call(TOKEN) == (TOKEN, bytes.fromhex("313ce567"))
