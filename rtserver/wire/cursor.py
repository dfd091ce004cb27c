"""Cursors: epoch, seq and the start of a block hash. Opaque to clients; anything may come back."""

from dataclasses import dataclass
from typing import Final

__all__ = ["Cursor", "cursor_text", "parse_cursor"]

# Enough of a block hash that no two blocks at one seq share it.
_HASH_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a channel's stream."""

    epoch: str
    seq: int
    block_tag: str


def cursor_text(epoch: str, seq: int, block_hash: str) -> str:
    """Return a cursor as a client gets it."""
    return f"{epoch}.{seq}.{block_hash[2 : 2 + _HASH_DIGITS]}"


def parse_cursor(text: str) -> Cursor | None:
    """Return a cursor, None for anything that was never one."""
    parts = text.split(".")
    if len(parts) != 3 or len(text) > 64 or not parts[1].isascii() or not parts[1].isdigit():
        return None
    return Cursor(parts[0], int(parts[1]), parts[2])
