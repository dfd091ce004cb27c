"""Frames are counted as they are, however their bytes arrive; and too many of them end a socket."""

from __future__ import annotations

import asyncio
import json
import struct

from hypothesis import given
from hypothesis import strategies as st

from rtserver.edge.frame_meter import FrameMeter
from rtserver.hub.limits import Limits
from rtserver.wire.codes import CloseCode

from .raw import HANDSHAKE, exchange, get, masked, opened
from .served import Served, served

PLENTY = 1 << 30


def frame(opcode: int, size: int, *, is_masked: bool, is_wide: bool) -> bytes:
    """Return a frame, its length written as long as need be, or longer than need be."""
    mask = 0x80 if is_masked else 0
    if size < 126 and not is_wide:
        head = bytes((opcode, mask | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", opcode, mask | 126, size)
    else:
        head = struct.pack("!BBQ", opcode, mask | 127, size)
    return head + bytes(4 if is_masked else 0) + bytes(size)


FRAMES = st.lists(
    st.builds(
        frame,
        st.sampled_from([0x00, 0x01, 0x80, 0x81, 0x89]),
        st.sampled_from([0, 1, 125, 126, 300, 70_000]),
        is_masked=st.booleans(),
        is_wide=st.booleans(),
    ),
    max_size=12,
)


@given(frames=FRAMES, cuts=st.lists(st.integers(1, 200), min_size=1, max_size=40))
def test_however_the_bytes_are_cut(frames: list[bytes], cuts: list[int]) -> None:
    meter, stream, counted = FrameMeter(), b"".join(frames), 0
    for cut in cuts:
        piece, stream = stream[:cut], stream[cut:]
        found, end = meter.count(piece, PLENTY)
        assert end == len(piece)
        counted += found
    counted += meter.count(stream, PLENTY)[0]
    assert counted == len(frames)


@given(frames=FRAMES, most=st.integers(0, 12), cut=st.integers(0, 500))
def test_it_stops_where_one_too_many_begins(frames: list[bytes], most: int, cut: int) -> None:
    meter, stream = FrameMeter(), b"".join(frames)
    first, end = meter.count(stream[:cut], most)
    if end == len(stream[:cut]):
        second, end = meter.count(stream[cut:], most - first)
        first, end = first + second, end + len(stream[:cut])
    assert first == min(most, len(frames))
    begin = len(b"".join(frames[:most]))
    if len(frames) <= most:
        assert end == len(stream)
    else:
        # The first bytes of a header that came in two pieces were not known to be one too many.
        assert end == begin or (end == cut and begin < cut < begin + 10)


def test_a_frame_that_never_ends_is_one() -> None:
    meter = FrameMeter()
    assert meter.count(struct.pack("!BBQ", 0x81, 0xFF, 1 << 63), 1) == (1, 10)
    for _ in range(100):
        assert meter.count(bytes(1000), 0) == (0, 1000)


async def _end(reader: asyncio.StreamReader) -> bytes:
    """Read to the end, which comes with or without a reset; return all of it."""
    read = b""
    try:
        async with asyncio.timeout(10):
            while chunk := await reader.read(1 << 16):
                read += chunk
    except ConnectionError:
        pass
    return read


async def _flood(server: Served, piece: bytes, before: bytes = b"") -> bytes:
    reader, writer = await opened(server.port)
    writer.write(HANDSHAKE + before + piece * 40_000)
    try:
        return await _end(reader)
    finally:
        writer.close()


RATE = b"\x88\x02" + int(CloseCode.RATE).to_bytes(2, "big")


async def test_a_flood_of_empty_fragments_ends_the_socket(server: Served) -> None:
    """They are no message, so nothing else counts them; four million a second kept everyone else waiting."""
    read = await _flood(server, masked(0, fin=False), before=masked(1, fin=False))
    assert read.endswith(RATE)
    assert (await exchange(server.port, get(b"/health/live"))).status == 200


async def test_a_flood_of_pings_ends_the_socket(server: Served) -> None:
    read = await _flood(server, masked(9))
    assert read.endswith(RATE)


async def test_a_flood_of_messages_is_answered_before_it_ends_the_socket(server: Served) -> None:
    read = await _flood(server, masked(1, b"{}"))
    assert b'"code":"rate"' in read
    assert RATE in read


async def test_fragments_of_a_message_are_one_message(server: Served) -> None:
    server.states["head:31337"] = {}
    text = json.dumps({"type": "subscribe", "id": 1, "channel": "head:31337"}).encode()
    pieces = [text[at : at + 2] for at in range(0, len(text), 2)]
    frames = [masked(0 if at else 1, piece, fin=at == len(pieces) - 1) for at, piece in enumerate(pieces)]
    reader, writer = await opened(server.port)
    # Right behind the handshake, and cut where it hurts.
    stream = HANDSHAKE + masked(9, b"hello").join(frames[:2]) + b"".join(frames[2:])
    for at in range(0, len(stream), 7):
        writer.write(stream[at : at + 7])
        await writer.drain()
    async with asyncio.timeout(10):
        await reader.readuntil(b'"type":"subscribed"')
    writer.close()


async def test_what_comes_right_behind_the_handshake_is_counted() -> None:
    limits = Limits(messages_per_s=0.001, burst=1)
    async with served(limits=limits) as server:
        server.mine()
        reader, writer = await opened(server.port)
        writer.write(HANDSHAKE + masked(1, fin=False) + masked(0, fin=False) * 10_000)
        assert (await _end(reader)).endswith(RATE)
        writer.close()
        async with asyncio.timeout(10):
            while list(server.hub.sessions) or server.connections:
                await asyncio.sleep(0)
