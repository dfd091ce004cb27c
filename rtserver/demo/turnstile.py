"""One change at a time, and no reading while it lasts; reads among themselves don't wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turnstile"]


class Turnstile:
    """Lets many readers or one change through, first come, first served."""

    def __init__(self) -> None:
        # Held by a change to its end, by a reader only while it enters: whoever waits for it waits in line.
        self._door = asyncio.Lock()
        self._readers = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Read beside other readers, after any change that came before."""
        async with self._door:
            self._readers += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self._empty.set()

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Change alone, once all who read have left."""
        async with self._door:
            await self._empty.wait()
            yield
