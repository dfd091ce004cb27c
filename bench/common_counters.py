"""What the kernel says that a process used. Linux."""

import time
from pathlib import Path

__all__ = ["cpu_ns", "resident_kib", "write_calls"]


def cpu_ns(pid: int) -> int:
    """Return the CPU time that a process has used, all its threads, user and system, in nanoseconds.

    Raises:
        OSError: There is no such process.

    Source: clock_getcpuclockid(3); /proc/PID/stat says the same in hundredths of a second.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def resident_kib(pid: int) -> int:
    """Return a process's resident memory."""
    return _field(pid, "status", "VmRSS:")


def write_calls(pid: int) -> int:
    """Return how many write system calls a process has made (write, writev; not sendto and sendmsg)."""
    return _field(pid, "io", "syscw:")


def _field(pid: int, file: str, name: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has ended")
