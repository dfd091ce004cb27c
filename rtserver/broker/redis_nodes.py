"""The Redis behind the broker, one server or a Cluster: which node a key is on, and what its errors mean here.

A library's exceptions end here. Commands have a connection pool and a time limit; a subscription has a connection of
its own and none, because silence is its normal state: who listens decides when that has lasted too long. Nothing here
tries again: the library's own retries are off, because whoever calls knows what a lost answer means.

On a Cluster commands follow MOVED and ASK by themselves. A subscription is to the node that holds the slot: it is
asked for anew before each one, and ends when the slot leaves the node, or the node the cluster. A node that failed to
answer is the last one to be asked who has its slots now.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import msgspec
import orjson
from redis._parsers import AsyncCommandsParser
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from ..domain.errors import ConfigError, PermanentError
from .ports import BrokerAway
from .scripts import Script

__all__ = ["CLUSTER", "RedisNodes", "translated"]

CLUSTER: Final = "+cluster"
_DEFAULT_PORT: Final = 6379
# A node that is to be listened to answers within this, or the others are asked whether it is still the one. Well within
# the silence that ends a subscription: until then nothing else is known of a node that hangs.
_PROBE_S: Final = 1.0

# What the client of a Cluster raises beside its errors: the layout that it knows may be older than an answer.
_AWAY: Final = (RedisError, RedisClusterException, OSError)

_Client: TypeAlias = "Redis | RedisCluster"


class RedisNodes:
    """One server, or all nodes of a Cluster.

    Args:
        url: redis://, rediss:// or unix://; with `+cluster` behind the scheme it is of a Cluster, and may name several
            nodes to ask, with commas between. May hold a password, and is never shown.
        timeout_s: The longest that a command may take.

    Raises:
        ConfigError: The address is not one.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        scheme = urlsplit(url).scheme
        self.is_cluster: Final = scheme.endswith(CLUSTER)
        self._options: Final[dict[str, Any]] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
        }
        if scheme != "unix":
            # The library knows it of TCP alone, and a socket of this machine can't fall silent.
            self._options["socket_keepalive"] = True
        self._probe_s: Final = min(_PROBE_S, timeout_s)
        # Of a Cluster: the node that failed last. The library forgets it with the command that met it, and asks any.
        self._failed: str | None = None
        # Of a Cluster: one for each node that is listened to.
        self._listeners: dict[tuple[str, int], Redis] = {}
        try:
            seeds = _split(url) if self.is_cluster else [url]
            self._url: Final = seeds[0]
            self.client: Final = self._cluster(seeds) if self.is_cluster else self._one(url)
        except (ValueError, RedisClusterException) as error:
            raise ConfigError(f"redis.url: {error}") from error

    def _one(self, url: str) -> Redis:
        # A `Retry` keeps what it counts: each client has its own.
        return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **self._options)

    def _cluster(self, seeds: list[str]) -> RedisCluster:
        places = [parse_url(seed) for seed in seeds]
        nodes = [ClusterNode(str(one.get("host")), int(one.get("port", _DEFAULT_PORT))) for one in places]
        client = RedisCluster.from_url(seeds[0], startup_nodes=nodes, retry=Retry(NoBackoff(), 0), **self._options)
        client.commands_parser = _FirstIsKey()
        return client

    async def run(self, script: Script, keys: Sequence[str], *args: Any) -> Any:
        """Run a script on the node that holds its keys; raises BrokerAway.

        A node that doesn't know it is sent its text: to load it first would ask all nodes of a Cluster, and one that
        is away would be missed for keys that it has nothing to do with.
        """
        async with self.asked() as client:
            try:
                return await client.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:
                return await client.eval(script.text, len(keys), *keys, *args)

    async def exists(self, key: str) -> bool:
        """Return whether there is a key; raises BrokerAway."""
        async with self.asked() as client:
            # Not by the method of this name: a Cluster's makes a pipeline of it, which does not notice that a node is
            # gone and asks the same one again and again, until some other command learns who has the slot now.
            return bool(await client.execute_command("EXISTS", key))

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[_Client]:
        """Yield the client, for commands one after the other; raises BrokerAway."""
        async with translated():
            try:
                if isinstance(self.client, RedisCluster):
                    # Does nothing but after an error: then whose slots are whose is asked anew.
                    await self.client.initialize(last_failed_node_name=self._failed)
                yield self.client
            except RedisError as error:
                self._failed = getattr(error, "last_failed_node_name", self._failed)
                raise
            except RedisClusterException:
                self._begin_again()
                raise

    def _begin_again(self) -> None:
        """Ask those in the address as well from now on: nobody who was known since can say who has what.

        A Cluster whose nodes were all replaced has the addresses of none of them, and the names of the first ones.
        """
        assert isinstance(self.client, RedisCluster)
        known = self.client.nodes_manager.startup_nodes
        for node in self.client.startup_nodes:
            known.setdefault(node.name, node)

    async def listen(self, channel: str, silence_s: float = math.inf) -> AsyncIterator[bytes | None]:
        """Yield None once the subscription stands, then payloads; raises BrokerAway when it ends.

        With `silence_s` it ends also when so long nothing was said: nobody is there any more, or nobody has anything
        to say. By sharded pub/sub, which a single server has as well: a Cluster sends the others to all of its nodes.
        """
        async with translated():
            redis = await self._listener(channel)
            pubsub: PubSub = redis.pubsub(push_handler_func=_untouched)
            try:
                await pubsub.ssubscribe(channel)
                while True:
                    message = await pubsub.get_message(timeout=silence_s)
                    _end_if_cancelled()
                    if message is None:
                        if silence_s == math.inf:
                            continue
                        raise BrokerAway(f"redis: nothing heard for {silence_s:g} s")
                    if message["type"] == "ssubscribe":
                        yield None
                    elif message["type"] == "smessage":
                        yield message["data"]
                    elif message["type"] == "sunsubscribe":
                        # Nobody here ever does: the node no longer has the slot.
                        raise BrokerAway("redis: the slot moved to another node")
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _listener(self, key: str) -> Redis:
        """Return the client of the node that holds a key now."""
        if isinstance(self.client, Redis):
            return self.client
        try:
            # The answer comes from the node itself; what is known from before may have been overtaken by a failover.
            async with asyncio.timeout(self._probe_s):
                await self.exists(key)
            node = self.client.get_node_from_key(key)
        except TimeoutError:
            node = await self._another(key)
        assert node is not None, "a master holds the slot that has just answered"
        at = (node.host, int(node.port))
        known = self._listeners.get(at)
        if known is None:
            known = self._listeners[at] = self._one(_at(self._url, *at))
        return known

    async def _another(self, key: str) -> ClusterNode:
        """Return the node that took over a key from one that hangs; raises BrokerAway while there is none."""
        assert isinstance(self.client, RedisCluster)
        before = self.client.get_node_from_key(key)
        self._failed = None if before is None else before.name
        await self.client.nodes_manager.initialize(last_failed_node_name=self._failed)
        node = self.client.get_node_from_key(key)
        if node is None or node.name == self._failed:
            raise BrokerAway("redis: the node does not answer")
        return node

    async def aclose(self) -> None:
        """Close all connections."""
        for one in (self.client, *self._listeners.values()):
            await one.aclose()
        if isinstance(self.client, RedisCluster):
            # After an error it is about to learn the layout anew, and takes itself for closed.
            for kind in ("nodes_cache", "startup_nodes"):
                await self.client.nodes_manager.aclose(kind)


async def _untouched(pushed: Any) -> Any:
    """Hand on what was pushed. The library's own handler makes a text of each for a log that nobody reads.

    That is half of what it costs to hear a block that changes 500 channels. Mended after 8.1 (redis-py #4230).
    """
    return pushed


class _FirstIsKey(AsyncCommandsParser):
    """Says where a command's keys are: the first is right behind it, in all that is sent here but scripts.

    The library asks the first master for the whole table of commands whenever it learns the layout; while that one is
    away nobody could begin, whatever node they need.
    """

    async def initialize(self, node: ClusterNode | None = None) -> None:
        """Ask nobody."""

    async def get_keys(self, *args: Any) -> tuple[str, ...]:
        """Return the first key, which decides the slot."""
        return args[1:2]


def _split(url: str) -> list[str]:
    """Return a Cluster's address as one for each of the nodes that it names."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    scheme = parts.scheme.removesuffix(CLUSTER)
    # A path is the number of a database, and a Cluster has but one.
    return [urlunsplit((scheme, f"{credentials}{at}{host}", "", parts.query, "")) for host in hosts.split(",")]


def _at(url: str, host: str, port: int) -> str:
    """Return the address of another node, as the same user."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{credentials}{at}{f'[{host}]' if ':' in host else host}:{port}").geturl()


def _reason(error: BaseException) -> str:
    """Return what went wrong, without an address: the library puts none of the password in, but who knows."""
    text = str(error).split("\n")[0]
    return type(error).__name__ if "@" in text or not text else text[:200]


def _is_the_librarys(error: BaseException) -> bool:
    """Return whether an error was raised in the library's own code, or in that of the sockets below it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith(("redis.", "uvloop."))


def _end_if_cancelled() -> None:
    """End a task that was told to, though the library went on.

    `asyncio.wait_for` of Python 3.11, which the library uses, returns a result that came together with a
    cancellation, and forgets the latter; and closing a connection may fail while one is on its way.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Translate what the library raises: BrokerAway, or PermanentError for what can't be read."""
    try:
        yield
        _end_if_cancelled()
    except asyncio.CancelledError as error:
        _end_if_cancelled()
        # Nobody told this task to end. Who is cancelled while it waits for a connection to close cancels that for all
        # who wait for the same one; a listener that took it for its own end would be gone without a word.
        raise BrokerAway("redis: a connection was closed") from error
    except _AWAY as error:
        _end_if_cancelled()
        raise BrokerAway(f"redis: {_reason(error)}") from error
    except (AttributeError, RuntimeError) as error:
        if not _is_the_librarys(error):
            raise
        _end_if_cancelled()
        if isinstance(error, AttributeError):
            # It has no client yet for a node without slots, though one is on its way there, and asks None instead.
            raise BrokerAway("redis: a slot is moving to a new node") from error
        # What uvloop says to whoever writes to a connection that has just broken.
        raise BrokerAway("redis: the connection was closed") from error
    except (UnicodeDecodeError, msgspec.DecodeError, orjson.JSONDecodeError) as error:
        raise PermanentError(f"redis holds what is not rtserver's: {error}") from error
