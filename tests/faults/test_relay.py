"""The relay itself: transparent unless it is told otherwise, and each fault is what its name says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from .relay import BOTH, Direction, Relay


class Far:
    """What the relay leads to: its newest connection, as it is seen from there."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came.put_nowait((reader, writer))


@pytest.fixture
async def far() -> AsyncIterator[tuple[Far, int]]:
    far = Far()
    server = await asyncio.start_server(far.serve, "127.0.0.1", 0)
    async with server:
        yield far, server.sockets[0].getsockname()[1]


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(relay: Relay, far: Far) -> tuple[Ends, Ends]:
    near = await asyncio.open_connection("127.0.0.1", relay.port)
    return near, await far.came.get()


def ends(near: Ends, far: Ends, direction: Direction) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    """Return where bytes of a direction go in and where they come out."""
    return (near[1], far[0]) if direction == "to server" else (far[1], near[0])


async def gone(reader: asyncio.StreamReader) -> bool:
    try:
        return not await reader.read()
    except ConnectionError:
        return True


async def test_bytes_and_ends_pass_unchanged(far: tuple[Far, int]) -> None:
    async with asyncio.timeout(20), Relay(far[1]) as relay:
        near, there = await connected(relay, far[0])
        for direction in BOTH:
            into, out = ends(near, there, direction)
            much = bytes(range(256)) * 4096
            into.write(much)
            into.write_eof()
            assert await out.read() == much
        for _, writer in (near, there):
            writer.close()


@pytest.mark.parametrize("direction", BOTH)
async def test_one_direction_is_held_and_the_other_is_not(far: tuple[Far, int], direction: Direction) -> None:
    other: Direction = "to client" if direction == "to server" else "to server"
    async with asyncio.timeout(20), Relay(far[1]) as relay:
        near, there = await connected(relay, far[0])
        relay.hold(direction)
        held_in, held_out = ends(near, there, direction)
        free_in, free_out = ends(near, there, other)
        waiting = asyncio.create_task(held_out.readexactly(4))
        held_in.write(b"held")
        # Time enough for it to come, if it came: each answer is a way through the same loop.
        for index in range(20):
            free_in.write(bytes([index]))
            assert await free_out.readexactly(1) == bytes([index])
        assert not waiting.done()
        relay.release(direction)
        assert await waiting == b"held"
        for _, writer in (near, there):
            writer.close()


async def test_all_is_held_by_default(far: tuple[Far, int]) -> None:
    async with asyncio.timeout(20), Relay(far[1]) as relay:
        held, other = await connected(relay, far[0]), await connected(relay, far[0])
        relay.hold()
        tasks = []
        for near, there in (held, other):
            for direction in BOTH:
                into, out = ends(near, there, direction)
                into.write(b"x")
                tasks.append(asyncio.create_task(out.readexactly(1)))
        assert relay.connections == 2
        assert not any(task.done() for task in tasks)
        relay.release()
        assert await asyncio.gather(*tasks) == [b"x"] * 4
        for near, there in (held, other):
            near[1].close()
            there[1].close()


async def test_a_cut_is_seen_on_both_sides_also_while_held(far: tuple[Far, int]) -> None:
    async with asyncio.timeout(20), Relay(far[1]) as relay:
        for is_held in (False, True):
            near, there = await connected(relay, far[0])
            if is_held:
                relay.hold()
            relay.cut()
            assert await gone(near[0])
            assert await gone(there[0])
            for _, writer in (near, there):
                writer.close()


async def test_nobody_there_is_a_reset(unused_tcp_port: int) -> None:
    async with asyncio.timeout(20), Relay(unused_tcp_port) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        assert await gone(reader)
        writer.close()


async def test_it_can_be_entered_again(far: tuple[Far, int]) -> None:
    relay = Relay(far[1])
    for _ in range(2):
        async with asyncio.timeout(20), relay:
            near, there = await connected(relay, far[0])
            near[1].write(b"hello")
            assert await there[0].readexactly(5) == b"hello"
            for _, writer in (near, there):
                writer.close()
