from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
from broker.redis_server import RedisServer

from rtserver.broker.redis_link import RedisBroker

from .joined import Joined, joined


@pytest.fixture(params=["direct", "memory", "redis"])
async def all_ways(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[Joined]:
    """Engine and clients in one process, or apart, over each broker; two gateways where there are any."""
    prefix = f"t{secrets.token_hex(6)}"
    async with joined(request.param, lambda: RedisBroker(redis_server.url, prefix)) as one:
        await one.begin(2)
        yield one


@pytest.fixture(params=["memory", "redis"])
async def apart(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[Joined]:
    """Engine and two gateways, over each broker."""
    prefix = f"t{secrets.token_hex(6)}"
    async with joined(request.param, lambda: RedisBroker(redis_server.url, prefix)) as one:
        await one.begin(2)
        yield one
