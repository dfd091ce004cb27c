"""A stage with one Redis, behind a line that leads to whoever is master."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from broker.redis_server import RedisServer
from roles.processes import Deployed

from rtserver.demo.lab import Lab

from .line import RedisLine
from .stage import Stage, played

__all__ = ["OneRedis", "make_redis", "one_redis"]


class OneRedis(Stage):
    """See Stage; `redis` is the server that is master now, at the end of `line`."""

    redis: RedisServer
    line: RedisLine

    async def close(self) -> None:
        """End what this object opened."""
        await super().close()
        # A row that failed may have left it frozen, and what is frozen hears nothing.
        self.redis.thaw()


def make_redis(folder: Path, *options: str) -> RedisServer:
    """Return a server that keeps its data in a new folder: what it has told somebody survives its being killed."""
    own = Path(tempfile.mkdtemp(prefix="redis-", dir=folder))
    return RedisServer(own, "--appendonly", "yes", "--dir", str(own), *options)


@asynccontextmanager
async def one_redis(lab: Lab, folder: Path, *, outage_ms: int, crowd: int) -> AsyncIterator[OneRedis]:
    """Start everything; see OpenStage."""
    async with AsyncExitStack() as stack:
        redis = await asyncio.to_thread(make_redis, folder)
        await redis.start()
        line = await stack.enter_async_context(RedisLine(redis.port))
        deployed = Deployed(lab, redis, folder, redis_url=line.url)
        stage = OneRedis(lab, deployed, outage_ms=outage_ms, crowd=crowd)
        stage.redis, stage.line = redis, line
        # Whichever is the stage's then.
        stack.push_async_callback(lambda: stage.redis.end())
        yield await stack.enter_async_context(played(stage, deployed))
