"""The real server as a process of its own, on a chain with a market that never stops; conftest starts it."""

from __future__ import annotations

from dataclasses import dataclass

from rtserver.demo.lab import Lab
from rtserver.demo.process import Child


@dataclass(frozen=True, slots=True)
class Served:
    """Where it is, the chain that it follows, and its process."""

    url: str
    lab: Lab
    server: Child
