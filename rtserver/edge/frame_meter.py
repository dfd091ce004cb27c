"""Counts the frames in a client's bytes. Reads their lengths and nothing else; what they mean is the parser's.

The parser hands over whole messages, so it takes any number of empty fragments for nothing, 200,000 of them in
one turn of the loop. What is counted here is never parsed once it is too much.
"""

__all__ = ["FrameMeter"]


class FrameMeter:
    """Where in a stream of WebSocket frames (RFC 6455, section 5.2) the bytes so far have ended."""

    __slots__ = ("_head", "_skip")

    def __init__(self) -> None:
        # The begin of a header that is not whole yet: 9 bytes at most.
        self._head = b""
        # Bytes still to come of the frame before.
        self._skip = 0

    def count(self, data: bytes, most: int) -> tuple[int, int]:
        """Take bytes; return how many frames began in them, and where to stop.

        Args:
            data: The next bytes of the stream.
            most: Frames that may begin; nothing behind them is looked at, and the meter is of no use afterwards.

        Returns:
            The frames, at most `most`, and the offset in `data` at which one more begins: its length if none does.
        """
        kept = len(self._head)
        stream = self._head + data if kept else data
        size, at, frames = len(stream), self._skip, 0
        while size - at >= 2:
            if frames == most:
                return frames, max(at - kept, 0)
            length, start = stream[at + 1] & 0x7F, at + (6 if stream[at + 1] & 0x80 else 2)
            if length >= 126:
                wide = 2 if length == 126 else 8
                if size - at < 2 + wide:
                    break
                length, start = int.from_bytes(stream[at + 2 : at + 2 + wide]), start + wide
            at = start + length
            frames += 1
        self._head, self._skip = stream[at:], max(at - size, 0)
        return frames, len(data)
