"""A Redis of a test's own, which it may end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .redis_server import RedisServer


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path)
    await server.start()
    try:
        yield server
    finally:
        await server.end()
