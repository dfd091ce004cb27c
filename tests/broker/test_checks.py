"""What is said of a Redis at the start: of its own answers, and of real servers that are wrong in each way."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from redis.asyncio import Redis

from rtserver.broker.checks import judge, look_at_redis, shown_url
from rtserver.config import Settings
from rtserver.domain.errors import ConfigError
from rtserver.gateway import open_broker

from .redis_cluster import RedisNodesServer
from .redis_server import RedisServer

GOOD = {"redis_version": "7.2.4", "maxmemory": 0, "maxmemory_policy": "noeviction", "role": "master", "aof_enabled": 1}


def test_a_good_one() -> None:
    about = judge(GOOD)
    assert (about.version, about.policy, about.is_append_only, about.findings) == ("7.2.4", "noeviction", True, ())


@pytest.mark.parametrize(
    ("changed", "is_fatal", "says"),
    [
        ({"maxmemory": 1 << 30, "maxmemory_policy": "allkeys-lru"}, True, "set maxmemory-policy to noeviction"),
        ({"maxmemory": 1 << 30, "maxmemory_policy": "volatile-ttl"}, True, "maxmemory-policy volatile-ttl"),
        ({"maxmemory_policy": "allkeys-lru"}, False, "before there is one"),
        ({"role": "slave"}, True, "name its primary"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(changed: dict[str, object], is_fatal: bool, says: str) -> None:
    (finding,) = judge(GOOD | changed).findings
    assert finding.is_fatal is is_fatal
    assert says in finding.text


def test_of_a_cluster_a_replica_will_do() -> None:
    """Its address may name the node first that was a master until the last failover."""
    assert judge(GOOD | {"role": "slave", "redis_mode": "cluster"}).findings == ()


def test_what_is_not_told_is_not_wrong() -> None:
    """Some providers leave lines out."""
    assert judge({"redis_version": "7.0.0"}).findings == ()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://user:se@cret@host:6380/1?ssl_ca_certs=/ca", "rediss://host:6380/1"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
        ("redis+cluster://:secret@a:1,b:2", "redis+cluster://a:1,b:2"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def settings(role: str, url: str) -> Settings:
    given: dict[str, Any] = {"redis": {"url": url}, "chains": [{"id": 1, "rpc": ["http://127.0.0.1:9"]}]}
    return Settings(role=role, **given)  # type: ignore[arg-type] # one of them


@pytest.fixture
async def redis(tmp_path: Path) -> RedisServer:
    return RedisServer(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")


async def test_an_engine_refuses_one_that_evicts_and_a_gateway_says_so(redis: RedisServer) -> None:
    await redis.start()
    try:
        with pytest.raises(ConfigError, match="set maxmemory-policy to noeviction"):
            await open_broker(settings("engine", redis.url))
        await (await open_broker(settings("gateway", redis.url))).aclose()
        await redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await (await open_broker(settings("engine", redis.url))).aclose()

        wrong = redis.url.replace("redis://", "redis://limited:secret@")
        with pytest.raises(ConfigError, match="refuses the user or the password") as caught:
            await look_at_redis(wrong)
        assert "secret" not in str(caught.value)

        # As providers do: no CONFIG, but INFO.
        await redis.command("ACL", "SETUSER", "limited", "on", ">pass", "~*", "&*", "+@all", "-config", "-info")
        limited = redis.url.replace("redis://", "redis://limited:pass@")
        with pytest.raises(ConfigError, match="does not let this user ask INFO"):
            await look_at_redis(limited)
        await redis.command("ACL", "SETUSER", "limited", "+info")
        assert (await look_at_redis(limited)).maxmemory == 100 << 20
    finally:
        await redis.end()


async def test_none_is_told_with_its_address_and_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        await look_at_redis("redis://:secret@127.0.0.1:1/0")
    said = str(caught.value)
    assert "no Redis answers at redis://127.0.0.1:1/0" in said
    assert "redis-server --maxmemory-policy noeviction" in said
    assert "secret" not in said


async def test_of_a_clusters_nodes_one_that_answers_is_enough(redis_cluster: RedisNodesServer) -> None:
    node = redis_cluster.nodes[0]
    about = await look_at_redis(f"redis+cluster://127.0.0.1:1,127.0.0.1:{node.port}")
    async with Redis.from_url(node.url) as redis:
        assert about.version == (await redis.info("server"))["redis_version"]


async def test_one_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer) -> None:
    async def info(self: object) -> dict[str, Any]:
        return GOOD | {"redis_version": "6.2.14"}

    monkeypatch.setattr(Redis, "info", info)
    with pytest.raises(ConfigError, match=r"7 or newer is needed, this is 6\.2\.14"):
        await look_at_redis(redis_server.url)


async def test_a_socket_of_this_machine_is_a_redis_like_any_other() -> None:
    # The path of a socket may have some hundred bytes: those of tests may be longer.
    with TemporaryDirectory(prefix="rtserver-redis-", dir="/tmp") as folder:
        path = Path(folder, "redis.sock")
        server = RedisServer(Path(folder), "--unixsocket", str(path))
        await server.start()
        broker = await open_broker(settings("gateway", f"unix://{path}?db=0"))
        try:
            await broker.describe(1, {"name": "ethereum"})
            assert await broker.described() == {1: {"name": "ethereum"}}
            async with aclosing(broker.chain(1).steps()) as steps:  # type: ignore[type-var]
                assert await anext(steps) is None, "subscribed"
        finally:
            await broker.aclose()
            await server.end()
