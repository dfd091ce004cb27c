"""The load generator: built from C into the cache folder, started on its own core.

Without a C compiler it says so, and the same commands are carried out by a slower program in Python.
"""

import asyncio
import hashlib
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.fanout_process import Talker, cores, start_talker
from rtserver.demo.toolchain import cache_root

__all__ = ["Load", "Loader", "build_loader", "start_load"]

_SOURCE: Final = Path(__file__).parent / "load" / "loadgen.c"
_BUILD_TIMEOUT_S: Final = 60.0
_OPEN_TIMEOUT_S: Final = 120.0
# An address has 28,000 ports for one server; half of that leaves room for those that still close.
_CLIENTS_A_SOURCE: Final = 14_000


@dataclass(frozen=True, slots=True)
class Loader:
    """How to start a load generator; `is_compiled` tells whether it can be trusted not to be what is measured."""

    command: tuple[str, ...]
    is_compiled: bool


async def build_loader() -> Loader:
    """Return the compiled load generator, building it first if this source was never built here.

    Raises:
        RuntimeError: The compiler failed.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print(
            "no C compiler (cc, gcc or clang; in Debian: apt-get install gcc libc6-dev): the load comes from Python"
            " instead, which may be slower than the server that it measures",
            file=sys.stderr,
        )
        return Loader((sys.executable, "-m", "bench.fanout_pyload"), is_compiled=False)
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    target = cache_root() / f"loadgen-{digest}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_suffix(".new")
        words = (compiler, "-O2", "-o", str(half), str(_SOURCE))
        process = await asyncio.create_subprocess_exec(
            *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(_BUILD_TIMEOUT_S):
                said, _ = await process.communicate()
        except TimeoutError as error:
            process.kill()
            raise RuntimeError(f"{compiler} took longer than {_BUILD_TIMEOUT_S:.0f} s") from error
        if process.returncode:
            raise RuntimeError(f"{compiler} could not build {_SOURCE}:\n{said.decode(errors='replace')[-1500:]}")
        half.rename(target)
    return Loader((str(target),), is_compiled=True)


class Load:
    """Many clients of one server."""

    def __init__(self, talker: Talker, clients: int) -> None:
        self._talker = talker
        self.clients = clients

    async def open(self, timeout_s: float = _OPEN_TIMEOUT_S) -> float:
        """Open every client that is closed; return the seconds until all have what they asked for.

        Raises:
            RuntimeError: Some could not, or not in time.
        """
        found = await self._talker.ask("open", "open", timeout_s)
        if found["lost"]:
            raise RuntimeError(f"{self._talker.name}: {found['lost']} of {self.clients} lost: {found['error']}")
        return float(found["seconds"])

    async def reset(self) -> None:
        """Forget all counts."""
        await self._talker.ask("reset", "reset", 10)

    async def wait(self, broadcasts: int, timeout_s: float) -> dict[str, Any]:
        """Return the counts once every client has so many broadcasts, or time has passed.

        Raises:
            RuntimeError: Time has passed and some are missing, or clients were lost.
        """
        report = await self.counts(broadcasts, timeout_s)
        if not report["complete"] or report["lost"]:
            seen = f"{report['least']} to {report['most']} of {broadcasts} broadcasts, {report['lost']} clients lost"
            raise RuntimeError(f"{self._talker.name}: {seen} {report['error']}")
        return report

    async def counts(self, broadcasts: int = 0, timeout_s: float = 0) -> dict[str, Any]:
        """Return the counts, complete or not."""
        return await self._talker.ask(f"wait {broadcasts} {int(timeout_s * 1000)}", "report", timeout_s + 30)

    async def drop(self) -> None:
        """Close all clients at once."""
        await self._talker.ask("drop", "dropped", 30)

    async def behind(self, seq: int) -> int:
        """Return how many channels of all clients are not at this seq."""
        return int((await self._talker.ask(f"seqs {seq}", "seqs", 10))["wrong"])


@asynccontextmanager
async def start_load(
    loader: Loader, port: int, clients: int, folder: Path, *, name: str = "load", options: Sequence[str] = ()
) -> AsyncIterator[Load]:
    """Start a load generator for one server; nothing is connected yet."""
    sources = -(-clients // _CLIENTS_A_SOURCE)
    words = [*loader.command, "--port", str(port), "--clients", str(clients), "--sources", str(sources), *options]
    async with start_talker(words, name=f"load of {name}", core=cores()[1], log=folder / f"load-{name}.log") as talker:
        yield Load(talker, clients)
