from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
from broker.redis_cluster import RedisNodesServer
from broker.redis_server import RedisServer

from rtserver.broker.redis_link import RedisBroker

from .joined import Joined, joined


@pytest.fixture
def urls(redis_server: RedisServer, redis_cluster: RedisNodesServer) -> dict[str, str]:
    """Where a broker's kind is, for those that are anywhere."""
    return {"redis": redis_server.url, "cluster": redis_cluster.url}


@pytest.fixture(params=["direct", "memory", "redis", "cluster"])
async def all_ways(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[Joined]:
    """Engine and clients in one process, or apart, over each broker; two gateways where there are any."""
    prefix = f"t{secrets.token_hex(6)}"
    async with joined(request.param, lambda: RedisBroker(urls[request.param], prefix)) as one:
        await one.begin(2)
        yield one


@pytest.fixture(params=["memory", "redis", "cluster"])
async def apart(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[Joined]:
    """Engine and two gateways, over each broker."""
    prefix = f"t{secrets.token_hex(6)}"
    async with joined(request.param, lambda: RedisBroker(urls[request.param], prefix)) as one:
        await one.begin(2)
        yield one
