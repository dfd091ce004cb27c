"""WebSocket text frames as bytes, so that one frame serves every socket that gets the same message."""

__all__ = ["text_frame"]


def text_frame(payload: bytes) -> bytes:
    """Return an unmasked, unfragmented text frame. Source: RFC 6455 section 5.2."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload
