"""How the bench tells a server to broadcast: JSON lines in and out, on the server's own event loop.

A broadcast's text carries the nanosecond at which it was made. Never sends anything itself and never counts.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

__all__ = ["Handler", "broadcast", "obey", "payload", "say"]

# Answers one command; awaited one after the other.
Handler = Callable[[dict[str, Any]], Awaitable[None]]
_LINE_BYTES: Final = 1 << 24


def say(event: str, **fields: Any) -> None:
    """Tell the bench something."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def payload(size: int) -> bytes:
    """Return a text of exactly `size` bytes that says when it was made, in CLOCK_MONOTONIC nanoseconds."""
    head = b'{"t":%d,"pad":"' % time.monotonic_ns()
    return head + b"x" * (size - len(head) - 2) + b'"}'


async def broadcast(command: dict[str, Any], send: Callable[[bytes], Any]) -> None:
    """Send `count` texts of `bytes` bytes, one every `interval_s`; with 0, one after the other.

    `send` may return an awaitable. Between two of them the loop turns at least once.
    """
    interval_s = float(command["interval_s"])
    started = time.monotonic()
    for index in range(int(command["count"])):
        pause = started + index * interval_s - time.monotonic()
        await asyncio.sleep(max(pause, 0))
        waiting = send(payload(int(command["bytes"])))
        if waiting is not None:
            await waiting
    say("done", count=command["count"])


async def obey(port: int, handle: Handler, **fields: Any) -> None:
    """Say that clients can connect, then carry out commands until the bench goes away.

    Args:
        port: Where clients connect.
        handle: Carries out one command.
        fields: More to say at first: `pid` when another process is the one to measure.
    """
    reader = asyncio.StreamReader(limit=_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say("listening", port=port, **fields)
    while line := await reader.readline():
        await handle(json.loads(line))
