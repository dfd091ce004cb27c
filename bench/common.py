"""What every bench says about itself: the machine, and numbers summed up. Never measures and never judges."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["machine", "machine_line", "percentile"]


def machine() -> dict[str, Any]:
    """Return what the figures were measured on; `load_1m` tells whether it was quiet."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "orjson": version("orjson"),
        "uvloop": version("uvloop"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def machine_line() -> str:
    """Return the same as one line for people."""
    it = machine()
    return (
        f"{it['cpu']}, {it['cores']} cores, load {it['load_1m']}; {it['python']}, uvloop {it['uvloop']},"
        f" orjson {it['orjson']}; {it['system']}"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is not below `share` of them (nearest rank); NaN without values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-int(share * 1_000_000) * len(ordered) // 1_000_000) - 1))]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown CPU"
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown CPU")
