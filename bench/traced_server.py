"""`rtserver serve` that notes when each block passes each station, for `block_to_socket --trace`.

Wraps the methods at the seams between the parts; the parts themselves are the server's own. Times are of the
clock that all processes share. Slower than the real thing by some microseconds a block: its latencies are for
comparing stations, not for quoting.
"""

import atexit
import functools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rtserver.__main__ import main
from rtserver.chain.reader import ChainReader
from rtserver.chain.source import ChainSource
from rtserver.engine.core import EngineCore
from rtserver.hub.hub import Hub

__all__ = ["STATIONS", "TRACE_VARIABLE", "Trace"]

TRACE_VARIABLE: Final = "RTSERVER_BENCH_TRACE"
# In the order in which a block passes them.
STATIONS: Final = (
    "head decoded", "logs asked", "logs there", "reads asked", "reads there", "evaluate", "evaluated", "published",
)  # fmt: skip


class Trace:
    """Block hash → station → nanoseconds; written as one JSON file when the process ends."""

    def __init__(self) -> None:
        self.times: dict[str, dict[str, int]] = {}

    def note(self, block: str, station: str) -> None:
        """Note that a block is at a station now; only the first time counts."""
        self.times.setdefault(block, {}).setdefault(station, time.perf_counter_ns())

    def around(
        self, owner: type, name: str, before: str | None, after: str | None, block_of: Callable[..., str | None]
    ) -> None:
        """Wrap a plain method."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            block = block_of(*args, **kwargs)
            if block is not None and before is not None:
                self.note(block, before)
            result = original(*args, **kwargs)
            if block is not None and after is not None:
                self.note(block, after)
            return result

        setattr(owner, name, wrapped)

    def around_async(
        self, owner: type, name: str, before: str, after: str, block_of: Callable[..., str | None]
    ) -> None:
        """Wrap a coroutine method."""
        original: Callable[..., Awaitable[Any]] = getattr(owner, name)

        @functools.wraps(original)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            block = block_of(*args, **kwargs)
            if block is not None:
                self.note(block, before)
            result = await original(*args, **kwargs)
            if block is not None:
                self.note(block, after)
            return result

        setattr(owner, name, wrapped)

    def write(self, path: Path) -> None:
        """Write everything noted."""
        path.write_text(json.dumps(self.times))


def _of_call(_: object, calls: Sequence[object], block: str, purpose: str) -> str | None:
    return block if purpose == "block" and calls else None


def _install(path: Path) -> None:
    trace = Trace()
    trace.around(ChainSource, "hear", "head decoded", None, lambda _, __, header: header.hash)
    trace.around_async(ChainReader, "logs", "logs asked", "logs there", lambda _, blocks, __: blocks[-1])
    trace.around_async(ChainReader, "call", "reads asked", "reads there", _of_call)
    trace.around(EngineCore, "evaluate", "evaluate", "evaluated", lambda _, header, *__, **___: header.hash)
    trace.around(Hub, "publish", None, "published", lambda _, update: update.header.hash)
    atexit.register(trace.write, path)


if __name__ == "__main__":
    _install(Path(os.environ[TRACE_VARIABLE]))
    sys.argv.insert(1, "serve")
    main()
