"""Memory in pages of 2 MiB, where Linux gives them to those who ask ("madvise", as Ubuntu and many hosts have it).

A block that moves 50,000 positions touches hundreds of megabytes here and there; with pages of 4 KiB a tenth of its
time goes into finding out where they are. Only memory that is used through and through is asked for, so that it takes
no more room than before. Where the kernel's rule is "always" or "never" there is nothing to ask.
"""

import asyncio
import ctypes
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

__all__ = ["Region", "ask", "ask_forever", "regions", "worth_asking"]

log = structlog.get_logger(__name__)

_RULE: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS: Final = Path("/proc/self/smaps")
# See madvise(2). The second does at once what the first leaves to the kernel's leisure; Linux 6.1 or newer.
_HUGEPAGE: Final = 14
_COLLAPSE: Final = 25
# Below that there is little to gain.
_SMALLEST: Final = 4 << 20
_LEAST: Final = 64 << 20
# A region that is less full would grow by what its gaps take; one that has them for the larger part is done.
_FULL: Final = 0.9
_DONE: Final = 0.5
# After the first loads, and then for what was added meanwhile.
_FIRST_S: Final = 10.0
_EVERY_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Region:
    """A region of this process' memory; in bytes."""

    start: int
    size: int
    resident: int
    huge: int


def regions(lines: Iterable[str]) -> Iterator[Region]:
    """Yield the regions of /proc/…/smaps that are private, writable and of no file: what objects are in."""
    span: tuple[int, int] | None = None
    resident = 0
    for line in lines:
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            words = rest.split()
            start, _, end = name.partition("-")
            is_objects = words[0] == "rw-p" and (len(words) < 5 or words[4] == "[heap]")
            span = (int(start, 16), int(end, 16)) if is_objects else None
        elif span is not None and name == "Rss:":
            resident = int(rest.split()[0]) << 10
        elif span is not None and name == "AnonHugePages:":
            yield Region(span[0], span[1] - span[0], resident, int(rest.split()[0]) << 10)


def worth_asking(known: Iterable[Region]) -> list[Region]:
    """Return the regions that are full of small pages, if they are many together."""
    found = [
        each
        for each in known
        if each.size >= _SMALLEST and each.resident >= _FULL * each.size and each.huge < _DONE * each.size
    ]
    return found if sum(each.size for each in found) >= _LEAST else []


def ask() -> int:
    """Ask for huge pages where it pays; return for how many bytes. Takes some milliseconds for each 10 MiB."""
    if not sys.platform.startswith("linux") or not _RULE.exists() or "[madvise]" not in _RULE.read_text():
        return 0
    with _MAPS.open() as lines:
        found = worth_asking(regions(lines))
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    asked = 0
    for each in found:
        # Not to be had is no error: a region may be gone by now, and the kernel may have none left.
        if madvise(each.start, each.size, _HUGEPAGE) == 0:
            madvise(each.start, each.size, _COLLAPSE)
            asked += each.size
    return asked


async def ask_forever() -> None:
    """Ask again and again, in a thread that works when nothing else has to."""
    loop, pause_s = asyncio.get_running_loop(), _FIRST_S
    with ThreadPoolExecutor(1, "huge pages", _step_back) as beside:
        while True:
            await asyncio.sleep(pause_s)
            pause_s = _EVERY_S
            try:
                asked = await loop.run_in_executor(beside, ask)
            except OSError as error:
                # A process may be kept from reading of itself.
                log.info("no huge pages", reason=str(error))
                return
            if asked:
                log.debug("asked for huge pages", mib=asked >> 20)


def _step_back() -> None:
    """Give this thread what nobody else wants: to move half a gigabyte takes two seconds."""
    if sys.platform.startswith("linux"):  # elsewhere it would be the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
