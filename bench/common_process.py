"""Processes under a bench: the server, the load generator and the peer.

Starts and ends them, reads their JSON lines and the server's own counters. Never decides what the figures mean.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from bench.common_ws import Frames, connect, masked_text
from bench.traced_server import TRACE_VARIABLE
from rtserver.demo.process import Child

__all__ = ["Lines", "first_value_s", "metric", "read_metrics", "start_server"]

_START_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.005
_SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


class Lines:
    """A child that says JSON lines; what it writes to its standard error goes to a file."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    async def next(self, timeout_s: float) -> dict[str, Any]:
        """Return its next event.

        Raises:
            RuntimeError: It ended, or said nothing in time; the message has its last words.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise RuntimeError(f"nothing said for {timeout_s:.0f} s: {self._said()}") from None
        if not line:
            raise RuntimeError(f"ended early: {self._said()}")
        event: dict[str, Any] = json.loads(line)
        return event

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-1500:].strip() or "no last words"

    @classmethod
    @asynccontextmanager
    async def start(cls, command: Sequence[str], settings: object, log: Path) -> AsyncIterator["Lines"]:
        """Start a process, hand it its settings as one line, and end it afterwards."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                # A result of a long run with many clients is one long line.
                limit=1 << 28,
            )
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            await process.stdin.drain()
            yield cls(process, log)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()


def start_server(settings: Path, port: int, log: Path, trace: Path | None = None) -> Child:
    """Start the server with room for any number of clients from one address; with `trace`, its traced form."""
    environment = {
        **os.environ,
        "RTSERVER_LIMITS__CONNECTIONS_PER_IP": "100000",
        "RTSERVER_LIMITS__CONNECTIONS_PER_MINUTE": "1000000",
        "RTSERVER_LIMITS__LOADS_PER_MINUTE": "1000000",
        "RTSERVER_LOG__LEVEL": "warning",
    }
    command = ["rtserver", "serve"]
    if trace is not None:
        environment[TRACE_VARIABLE] = str(trace)
        command = ["bench.traced_server"]
    words = [sys.executable, "-m", *command, "--config", str(settings), "--host", "127.0.0.1", "--port", str(port)]
    return Child(words, log=log, environment=environment)


def first_value_s(server: Child, port: int, channel: str, started: float) -> float:
    """Return the seconds from `started` (time.monotonic) until a client had a channel's first values. Blocks.

    Raises:
        RuntimeError: The server ended, or time ran out.
    """
    subscribe = masked_text(orjson.dumps({"type": "subscribe", "channel": channel}))
    while time.monotonic() - started < _START_TIMEOUT_S:
        if server.returncode is not None:
            break
        try:
            connection, rest = connect(f"ws://127.0.0.1:{port}/ws")
        except OSError:
            time.sleep(_POLL_S)
            continue
        with connection:
            connection.sendall(subscribe)
            frames, chunk = Frames(), rest
            while True:
                for text in frames.take(chunk):
                    kind = orjson.loads(text)["type"]
                    if kind == "snapshot":
                        return time.monotonic() - started
                    if kind == "error":
                        raise RuntimeError(f"the server said {text.decode()}")
                chunk = connection.recv(1 << 16)
                if not chunk:
                    break
    raise RuntimeError(f"the server gave no values:\n{server.said()}")


Samples = list[tuple[str, dict[str, str], float]]


async def read_metrics(port: int) -> Samples:
    """Return the server's counters: (name, labels, value)."""
    url = f"http://127.0.0.1:{port}/metrics"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session, session.get(url) as answer:
        text = await answer.text()
    return [
        (name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value))
        for name, labels, value in _SAMPLE.findall(text)
    ]


def metric(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of a counter over all samples with these labels."""
    wanted: Mapping[str, str] = labels
    return sum(
        value for found, has, value in samples if found == name and all(has.get(k) == v for k, v in wanted.items())
    )
