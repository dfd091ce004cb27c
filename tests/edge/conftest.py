"""A server with a head, for each test."""

from collections.abc import AsyncIterator

import pytest

from .served import Served, served


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    """Serve one chain whose head is block 1."""
    async with served() as made:
        made.mine()
        yield made
