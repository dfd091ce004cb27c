"""Whether memory grows: measurements, the line through them, and a picture. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["KEPT", "Memory", "Slope", "kept_of", "slope_of", "spark", "svg_of"]

# What a server keeps, by its own metrics: as long as these grow, so may its memory.
KEPT: Final[Mapping[str, str]] = {
    "blocks": "rtserver_memory_blocks",
    "positions": 'rtserver_tracked{chain="local",kind="positions"}',
    "events": 'rtserver_tracked{chain="local",kind="events"}',
    "ringChanges": "rtserver_ring_changes",
    "channels": "rtserver_channels",
    "connections": "rtserver_connections",
}

_BARS: Final = "▁▂▃▄▅▆▇█"
# Until then a server fills its rings and caches: growth that ends.
_WARM_UP: Final = 0.5


@dataclass(frozen=True, slots=True)
class Slope:
    """A straight line through measurements, in units a minute; `error` is its standard error."""

    per_minute: float
    error: float


def slope_of(points: Sequence[tuple[float, float]]) -> Slope:
    """Return the line of least squares through (seconds, value); neighbours hang together, so the error is that of
    twelve means in a row and not that of all points."""
    if len(points) < 3:
        return Slope(0.0, 0.0)
    size = max(len(points) // 12, 1)
    groups = [points[start : start + size] for start in range(0, len(points) - size + 1, size)]
    means = [(sum(x for x, _ in group) / len(group) / 60, sum(y for _, y in group) / len(group)) for group in groups]
    count = len(means)
    middle_x, middle_y = sum(x for x, _ in means) / count, sum(y for _, y in means) / count
    spread = sum((x - middle_x) ** 2 for x, _ in means)
    if not spread:
        return Slope(0.0, 0.0)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in means) / spread
    rest = sum((y - middle_y - slope * (x - middle_x)) ** 2 for x, y in means)
    return Slope(slope, math.sqrt(rest / max(count - 2, 1) / spread))


@dataclass(slots=True)
class Memory:
    """A process's resident memory: (seconds since the start, KiB); and what it kept then, by the names of `KEPT`."""

    points: list[tuple[float, float]] = field(default_factory=list)
    kept: list[tuple[float, Mapping[str, float]]] = field(default_factory=list)

    def second_half(self) -> list[tuple[float, float]]:
        """Return what was measured after the warm-up."""
        if not self.points:
            return []
        begin, end = self.points[0][0], self.points[-1][0]
        return [point for point in self.points if point[0] >= begin + (end - begin) * _WARM_UP]

    def as_json(self, *, most: int = 240) -> dict[str, Any]:
        """Return it for JSON, with at most so many points."""
        slope = slope_of(self.second_half())
        every = max(len(self.points) // most, 1)
        return {
            "slopeKibPerMinute": round(slope.per_minute, 2),
            "slopeError": round(slope.error, 2),
            "seconds": [round(x, 1) for x, _ in self.points[::every]],
            "kib": [round(y) for _, y in self.points[::every]],
            "kept": {name: self._halves(name) for name in KEPT},
        }

    def _halves(self, name: str) -> dict[str, float]:
        """Return the mean of something kept over the third and the fourth quarter, and the slope over both."""
        if not self.kept:
            return {}
        begin, end = self.kept[0][0], self.kept[-1][0]
        half = [(x, kept[name]) for x, kept in self.kept if x >= begin + (end - begin) * _WARM_UP and name in kept]
        cut = begin + (end - begin) * (1 + _WARM_UP) / 2
        quarters = [[y for x, y in half if (x >= cut) is is_last] for is_last in (False, True)]
        if not all(quarters):
            return {}
        third, fourth = (round(sum(each) / len(each), 1) for each in quarters)
        return {"third": third, "fourth": fourth, "perMinute": round(slope_of(half).per_minute, 2)}


def kept_of(metrics: str) -> dict[str, float]:
    """Return what a server keeps, from its metrics as text; what it doesn't tell is left out."""
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line and not line.startswith("#"))
    return {name: float(values[metric]) for name, metric in KEPT.items() if metric in values}


def spark(values: Sequence[float], *, width: int = 72) -> str:
    """Return a line of bars, from the least to the most."""
    if not values:
        return ""
    size = max(len(values) / width, 1.0)
    means = []
    for index in range(min(width, len(values))):
        part = values[int(index * size) : max(int((index + 1) * size), int(index * size) + 1)]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in means)


def svg_of(memory: Memory, title: str, *, width: int = 720, height: int = 240) -> str:
    """Return the curve as a picture; the scale begins at zero, or every curve looks steep."""
    left, bottom, top = 60, 30, 30
    last = max((x for x, _ in memory.points), default=1.0) or 1.0
    high = max((y for _, y in memory.points), default=1.0) * 1.1
    line = " ".join(
        f"{left + x / last * (width - left - 10):.1f},{height - bottom - y / high * (height - bottom - top):.1f}"
        for x, y in memory.points
    )
    marks = "".join(
        f'<text x="{left - 6}" y="{height - bottom - share * (height - bottom - top) + 4:.0f}" '
        f'text-anchor="end">{high * share / 1024:.0f}</text>'
        for share in (0.0, 0.5, 1.0)
    )
    minutes = "".join(
        f'<text x="{left + share * (width - left - 10):.0f}" y="{height - 10}" '
        f'text-anchor="middle">{last * share / 60:.0f} min</text>'
        for share in (0.0, 0.5, 1.0)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="#fff"/><text x="{left}" y="18">{title}, MiB</text>'
        f'<polyline fill="none" stroke="#2563eb" stroke-width="1.5" points="{line}"/>{marks}{minutes}</svg>\n'
    )
