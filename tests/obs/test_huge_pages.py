"""Which memory is asked for in huge pages, and that the kernel gives them where its rule is to ask."""

from __future__ import annotations

import mmap
from pathlib import Path

from rtserver.obs.huge_pages import Region, ask, regions, worth_asking

MIB = 1 << 20
SMAPS = """\
55d000000000-55d000400000 r-xp 00000000 fe:00 1234                       /usr/bin/python3.11
Size:               4096 kB
Rss:                4096 kB
AnonHugePages:         0 kB
VmFlags: rd ex mr mw me
55d001000000-55d005000000 rw-p 00000000 00:00 0                          [heap]
Size:              65536 kB
Rss:               65000 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me ac
7f0000000000-7f0000800000 rw-p 00000000 00:00 0
Size:               8192 kB
Rss:                  64 kB
AnonHugePages:         0 kB
VmFlags: rd wr mr mw me ac
7f1000000000-7f1000400000 rw-p 00000000 fe:00 77                         /var/lib/store.sqlite3-shm
Rss:                4096 kB
AnonHugePages:         0 kB
"""


def test_memory_of_objects_is_found_and_nothing_else() -> None:
    assert list(regions(SMAPS.splitlines())) == [
        Region(0x55D001000000, 64 * MIB, 65000 << 10, 2 * MIB),
        Region(0x7F0000000000, 8 * MIB, 64 << 10, 0),
    ]


def test_only_what_is_full_and_has_none_yet() -> None:
    full = Region(0, 64 * MIB, 60 * MIB, 0)
    stack = Region(0, 8 * MIB, 1 * MIB, 0)
    done = Region(0, 64 * MIB, 64 * MIB, 40 * MIB)
    small = Region(0, 1 * MIB, 1 * MIB, 0)
    assert worth_asking([full, stack, done, small]) == [full]
    assert worth_asking([Region(0, 32 * MIB, 32 * MIB, 0)]) == [], "too little to be worth a look"


def test_the_kernel_gives_them() -> None:
    is_asked = "[madvise]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    with mmap.mmap(-1, 96 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for page in range(0, len(memory), mmap.PAGESIZE):
            memory[page] = 1
        asked = ask()
        assert (asked >= 96 * MIB) is is_asked
        assert all(memory[page] == 1 for page in range(0, len(memory), mmap.PAGESIZE))
