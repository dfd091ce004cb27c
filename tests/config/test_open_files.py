"""The limit of open files is raised as far as it may be."""

from __future__ import annotations

import resource
import subprocess
import sys

PROGRAM = """
import resource
from rtserver.open_files import raise_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(raise_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def _raised(soft: int, hard: int) -> list[int]:
    """Return what is said, and the limits then: in a process of its own, as a hard limit only goes down."""
    program = PROGRAM.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return [int(part) for part in done.stdout.split()]


def test_the_soft_limit_becomes_the_hard_one() -> None:
    assert _raised(256, 512) == [512, 512, 512]
    assert _raised(512, 512) == [512, 512, 512]


def test_a_hard_limit_that_is_none_or_huge_is_no_mistake() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said, soft, _ = _raised(256, hard)
    assert said == soft
    assert said >= 256
