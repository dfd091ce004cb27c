"""Cursors come back as they were given, or as anything at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.wire.cursor import Cursor, cursor_text, parse_cursor

HASHES = st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda digits: "0x" + digits)


@given(st.text("0123456789abcdef", min_size=1, max_size=16), st.integers(0, 2**53), HASHES)
def test_there_and_back(epoch: str, seq: int, block_hash: str) -> None:
    assert parse_cursor(cursor_text(epoch, seq, block_hash)) == Cursor(epoch, seq, block_hash[2:18])


@pytest.mark.parametrize(
    "rubbish",
    ["", ".", "..", "a.b", "a.-1.c", "a.1", "a.1.b.c", "a.1e3.b", "a.١.b", "a. 1.b", "a.+1.b", "a.0x1.b", "x" * 100,
     "a." + "9" * 63 + ".b", "a..b"],
)  # fmt: skip
def test_rubbish_is_no_cursor(rubbish: str) -> None:
    assert parse_cursor(rubbish) is None


@given(st.text(max_size=80))
def test_any_text_parses_or_is_none(text: str) -> None:
    cursor = parse_cursor(text)
    assert cursor is None or cursor.seq >= 0
