"""Text frames at the sizes where the header changes, read back by another implementation."""

import pytest
from websockets.frames import Frame, Opcode

from rtserver.wire.frames import text_frame


@pytest.mark.parametrize(("size", "header"), [(0, 2), (1, 2), (125, 2), (126, 4), (65535, 4), (65536, 10), (70000, 10)])
def test_frames_are_those_of_rfc_6455(size: int, header: int) -> None:
    payload = b"x" * size
    frame = text_frame(payload)
    assert len(frame) == header + size
    assert frame == Frame(Opcode.TEXT, payload).serialize(mask=False)
