"""Whether a Redis will do, asked at the start: by INFO alone, which providers allow where they don't allow CONFIG.

What would show only once it is full, or only at a failover, is said here, before anything relies on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from ..domain.errors import ConfigError
from .redis_nodes import CLUSTER

__all__ = ["About", "Finding", "judge", "look_at_redis", "shown_url"]

_TIMEOUT_S: Final = 3.0
_OLDEST: Final = 7


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a Redis, and what to do about it. With a fatal one no engine should rely on it."""

    text: str
    is_fatal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a Redis says of itself: for a log or a report."""

    version: str
    # Bytes; 0 for no limit.
    maxmemory: int
    policy: str
    is_append_only: bool
    findings: tuple[Finding, ...]


def judge(info: Mapping[str, Any]) -> About:
    """Return what INFO's answer says, and what is wrong with it. What it does not tell is taken for right."""
    findings = []
    policy, maxmemory = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    if policy != "noeviction" and maxmemory:
        findings.append(
            Finding(
                f"this Redis takes away keys once it is full (maxmemory-policy {policy}), those that streams are made "
                "of: set maxmemory-policy to noeviction, in its configuration or at its provider",
                is_fatal=True,
            )
        )
    elif policy != "noeviction":
        findings.append(
            Finding(
                f"maxmemory-policy is {policy}: harmless without a limit (maxmemory 0), but set it to noeviction "
                "before there is one",
                is_fatal=False,
            )
        )
    # Of a Cluster any node will do: whoever has a key is asked for it, and a failover makes a replica of a master.
    if info.get("role", "master") != "master" and info.get("redis_mode") != "cluster":
        findings.append(Finding("this is a replica, which takes no writes: name its primary", is_fatal=True))
    return About(
        version=str(info.get("redis_version", "0")),
        maxmemory=maxmemory,
        policy=policy,
        is_append_only=bool(info.get("aof_enabled")),
        findings=tuple(findings),
    )


async def look_at_redis(url: str) -> About:
    """Ask a Redis, or a node of a Cluster, what it is.

    Args:
        url: As in the settings; may hold a password, which no error shows.

    Raises:
        ConfigError: None answers there, or not to us; it is too old, or a Cluster where the address says that it is
            none, or the other way round: nobody can do anything with it.
    """
    error: Exception | None = None
    for one in _nodes(url):
        try:
            async with Redis.from_url(
                one, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
            ) as redis:
                info = await redis.info()
                _refuse_useless(url, info)
                return judge(info)
        except (AuthenticationError, AuthorizationError) as refused:
            raise ConfigError(
                f"redis.url: {shown_url(url)} refuses the user or the password in RTSERVER_REDIS__URL"
            ) from refused
        except NoPermissionError as refused:
            raise ConfigError(
                f"redis.url: {shown_url(url)} does not let this user ask INFO: allow it (ACL SETUSER … +info)"
            ) from refused
        except ValueError as wrong:
            raise ConfigError("redis.url: not an address of a Redis") from wrong
        except (RedisError, OSError) as away:
            error = away
    raise ConfigError(
        f"redis.url: no Redis answers at {shown_url(url)} ({type(error).__name__}): start one "
        "(redis-server --maxmemory-policy noeviction), or correct RTSERVER_REDIS__URL"
    ) from error


def _refuse_useless(url: str, info: Mapping[str, Any]) -> None:
    version = str(info.get("redis_version", "0"))
    if int(version.partition(".")[0]) < _OLDEST:
        raise ConfigError(f"redis.url: Redis {_OLDEST} or newer is needed, this is {version}")
    scheme = urlsplit(url).scheme
    base, is_cluster = scheme.partition("+")[0], scheme.endswith(CLUSTER)
    if is_cluster != (info.get("redis_mode", "standalone") == "cluster"):
        raise ConfigError(
            f"redis.url: this Redis is not a Cluster: its address is {base}://…"
            if is_cluster
            else f"redis.url: this Redis is a Cluster: its address is {base}{CLUSTER}://…"
        )


def shown_url(url: str) -> str:
    """Return an address without user, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _nodes(url: str) -> list[str]:
    """Return the addresses of single servers: several, with commas between them, are nodes of a Cluster."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    scheme, query = parts.scheme.partition("+")[0], f"?{parts.query}" if parts.query else ""
    return [f"{scheme}://{user}{at}{host}{parts.path}{query}" for host in hosts.split(",")]
