"""The server as a child process of the demo: started with a settings file, ready or not, ended."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

import aiohttp

from .process import Child

__all__ = ["ServerFailed", "await_ready", "start_server", "url_of"]

_READY_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.05


class ServerFailed(Exception):
    """The server ended, or never became ready; the message has its own last words."""


def url_of(host: str, port: int) -> str:
    """Return a URL that works on this machine: a wildcard address is reached through loopback."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)
    if ":" in reachable and not reachable.startswith("["):
        reachable = f"[{reachable}]"
    return f"http://{reachable}:{port}"


def start_server(settings: Path, *, host: str, port: int, log: Path) -> Child:
    """Start `rtserver serve` with the interpreter that we run on."""
    command = [sys.executable, "-m", "rtserver", "serve", "--config", str(settings)]
    return Child([*command, "--host", host, "--port", str(port)], log=log)


async def await_ready(server: Child, base_url: str, *, timeout_s: float = _READY_TIMEOUT_S) -> None:
    """Return once `/health/ready` answers 200.

    Raises:
        ServerFailed: The process ended first, or time ran out.
    """
    deadline = time.monotonic() + timeout_s
    reason = "no answer yet"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
        while server.returncode is None:
            try:
                async with session.get(f"{base_url}/health/ready") as response:
                    if response.status == 200:
                        return
                    reason = f"{response.status} {(await response.text())[:300]}"
            except (aiohttp.ClientError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            if time.monotonic() > deadline:
                raise ServerFailed(f"the server was not ready in {timeout_s:.0f} s ({reason}):\n{server.said()}")
            await asyncio.sleep(_POLL_S)
    raise ServerFailed(f"the server ended with code {server.returncode}:\n{server.said()}")
