"""A connection without a network: the outlet that a hub's session writes to, and what becomes of its frames.

Bytes are unsent while the client doesn't read (the transport's buffer), then on their way, then delivered.
It checks what a hub may not do: write state to a client whose buffer was full before, or two block frames in
one step. So what is kept for a laggard is at most its buffer and what was owed to it in one go.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from rtserver.hub.session import LAG_BYTES

__all__ = ["Wire", "payload_of"]


def payload_of(frame: bytes) -> bytes:
    """Return the message in a frame of the server's: one text frame, unmasked, not fragmented."""
    assert frame[0] == 0x81, "a text frame, whole"
    size, start = frame[1], 2
    if size == 126:
        size, start = int.from_bytes(frame[2:4], "big"), 4
    elif size == 127:
        size, start = int.from_bytes(frame[2:10], "big"), 10
    assert len(frame) == start + size, "the frame's length"
    return frame[start:]


class Wire:
    """One connection's way to its client.

    Args:
        scale: What a byte counts, so that a few frames fill a buffer of 64 KiB.
    """

    def __init__(self, scale: int) -> None:
        self._scale = scale
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._was_full = False
        self._blocks_in_step: int | None = None
        self.in_flight: deque[bytes] = deque()
        self.is_stalled = False
        self.is_closed = False
        self.close_code: int | None = None

    # --- the outlet -----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue bytes, or send them at once where nothing waits."""
        assert not self.is_closed, "written after the end"
        is_block = data[2:30].find(b'{"type":"block"') >= 0
        if self._blocks_in_step is not None and is_block:
            self._blocks_in_step += 1
        is_state = is_block or data[2:30].find(b'{"type":"snapshot"') >= 0
        assert not (is_state and self._was_full), "state was written to a client whose buffer is full"
        if self.is_stalled or self._unsent:
            self._unsent.append(data)
            self._unsent_bytes += len(data)
        else:
            self.in_flight.append(data)

    def send_now(self, data: bytes) -> int:
        """Hand bytes to the kernel, past the outlet; a stalled client's is full."""
        assert not self._unsent, "overtook what is unsent"
        if self.is_stalled:
            raise BlockingIOError
        self.write(data)
        return len(data)

    def mark(self) -> None:
        """Note whether the buffer is full before the hub does the next thing."""
        self._was_full = self.get_write_buffer_size() > LAG_BYTES

    def get_write_buffer_size(self) -> int:
        """Return the bytes not yet sent, in the scale of this wire."""
        return self._unsent_bytes * self._scale

    def is_closing(self) -> bool:
        """Return whether nothing more can be written."""
        return self.is_closed

    def abort(self) -> None:
        """Drop the connection and what is unsent."""
        self.close(None)
        self._unsent.clear()
        self._unsent_bytes = 0

    def close(self, code: int | None) -> None:
        """Take nothing more; what was written still arrives."""
        self.is_closed = True
        self.close_code = code

    # --- the network ----------------------------------------------------------------------------------

    def flow(self, frames: int) -> None:
        """Send up to so many of the unsent frames, if the client reads."""
        while frames > 0 and self._unsent and not self.is_stalled:
            frame = self._unsent.popleft()
            self._unsent_bytes -= len(frame)
            self.in_flight.append(frame)
            frames -= 1

    @property
    def is_empty(self) -> bool:
        """Return whether everything was delivered."""
        return not self._unsent and not self.in_flight

    @contextmanager
    def step(self, *, expected: bool) -> Iterator[None]:
        """Watch a step: at most one block frame; exactly one, if so expected."""
        self.mark()
        self._blocks_in_step = 0
        yield
        count, self._blocks_in_step = self._blocks_in_step, None
        assert count <= 1, f"{count} block frames in one step"
        assert count == 1 or not expected, "a step that concerns the client brought no frame"
