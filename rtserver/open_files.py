"""How many files this process may have open: one socket is one."""

import resource
from typing import Final

__all__ = ["raise_open_files"]

# As far as Linux goes by default (fs.nr_open): more is refused also where the hard limit is none.
_MOST: Final = 1 << 20


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one, and return it.

    The soft one is often 1,024, for the sake of programs that keep files in bit sets of that size. Ours keeps none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MOST if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft  # a system with a limit of its own
    return wanted
