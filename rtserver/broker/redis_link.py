"""The broker over Redis: scripts.py, called; and two subscriptions. A library's exceptions end here.

Commands have a connection pool and a time limit; a subscription has a connection of its own and none, because
silence is its normal state: who listens decides when that has lasted too long. Nothing here tries again: the library's
own retries are off, because whoever calls knows what a lost answer means.
"""

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import orjson
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ..domain.errors import ConfigError, PermanentError
from .ports import BrokerAway, Fenced, Interests, Place, Reading
from .scripts import ACQUIRE, CLOSE, FORGET, PUBLISH, READ, RELEASE, RENEW, WISH
from .steps import (
    Heard,
    Held,
    Snapshot,
    Step,
    decode_entry,
    decode_header,
    decode_heard,
    encode_entry,
    encode_header,
    encode_refused,
    encode_rollback,
)

__all__ = ["RedisBroker", "RedisLink", "translated"]

# A call that takes longer has failed; a gateway heals and an engine sends again.
_TIMEOUT_S: Final = 3.0
# A chain that no engine has followed for so long is not one that gateways wait for.
_DESCRIBED_S: Final = 24 * 3600
_NAMES: Final = msgspec.msgpack.Decoder(list[str])


class RedisBroker:
    """All chains of one Redis.

    Args:
        url: redis://, rediss:// or unix://; may hold a password, and is never shown.
        prefix: What all keys begin with, so that several installations can share a Redis.
        timeout_s: The longest that a call may take.
    """

    def __init__(self, url: str, prefix: str = "rtserver", timeout_s: float = _TIMEOUT_S) -> None:
        self._prefix = prefix
        try:
            self._redis: Redis = Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise ConfigError(f"redis.url: {error}") from error

    @property
    def redis(self) -> Redis:
        """Return the client, for what is asked of Redis beside a chain's link."""
        return self._redis

    @property
    def prefix(self) -> str:
        """Return what all keys begin with."""
        return self._prefix

    async def check(self) -> None:
        """Ask whether there is a Redis that will do.

        Raises:
            ConfigError: It does not answer, or is too old.
        """
        try:
            facts = await self._redis.info("server")
        except (RedisError, OSError) as error:
            raise ConfigError(
                f"redis.url: no Redis answers there ({_reason(error)}); start one, or correct RTSERVER_REDIS__URL"
            ) from error
        version = str(facts.get("redis_version", "0"))
        if int(version.split(".")[0]) < 7:
            raise ConfigError(f"redis.url: Redis 7 or newer is needed, this is {version}")

    def chain(self, chain_id: int) -> "RedisLink":
        """Return the link of a chain."""
        return RedisLink(self._redis, f"{self._prefix}:{{{chain_id}}}:")

    async def describe(self, chain_id: int, description: Mapping[str, Any]) -> None:
        """Say that a chain is served, and what gateways tell of it; raises BrokerAway."""
        async with _translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(f"{self._prefix}:{{{chain_id}}}:about", orjson.dumps(description), ex=_DESCRIBED_S)
            pipe.sadd(f"{self._prefix}:chains", str(chain_id))
            await pipe.execute()

    async def described(self) -> dict[int, dict[str, Any]]:
        """Return the chains that engines serve; raises BrokerAway."""
        async with _translated():
            ids = [int(one) for one in await self._redis.smembers(f"{self._prefix}:chains")]
            texts = {one: await self._redis.get(f"{self._prefix}:{{{one}}}:about") for one in ids}
        return {one: orjson.loads(text) for one, text in texts.items() if text is not None}

    async def aclose(self) -> None:
        """Close all connections."""
        await self._redis.aclose()


class RedisLink:
    """One chain; see ports.ChainLink. `prefix` holds the hash tag of all its keys."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._scripts = {
            text: redis.register_script(text) for text in (ACQUIRE, CLOSE, FORGET, PUBLISH, READ, RELEASE, RENEW, WISH)
        }

    async def _run(self, script: str, *args: Any) -> Any:
        async with _translated():
            # The key decides the node; the script makes the others of the same tag.
            return await self._scripts[script](keys=[self._prefix + "owner"], args=[self._prefix, *args])

    # --- the engine's side ----------------------------------------------------------------------------

    async def acquire(self, holder: str, ttl_ms: int) -> str | None:
        """Take the lease; see the port."""
        token = await self._run(ACQUIRE, holder, ttl_ms)
        return None if token is None else token.decode()

    async def renew(self, token: str, ttl_ms: int) -> bool:
        """Keep the lease; see the port."""
        return bool(await self._run(RENEW, token, _holder(token), ttl_ms))

    async def release(self, token: str) -> None:
        """Give the lease back."""
        await self._run(RELEASE, token)

    async def publish(self, token: str, number: int, step: Step) -> None:
        """Write and notify in one script; see the port."""
        kind = ("b" if step.begins_run else "") + ("c" if step.is_complete else "")
        args: list[Any] = [
            token, number, kind or "-", encode_header(step.header), step.age_ms, encode_rollback(step.rollback),
            encode_refused(step.refused) if step.refused else "", len(step.entries), len(step.snapshots),
        ]  # fmt: skip
        for channel, entry in step.entries.items():
            args += (channel, entry.seq, step.oldest[channel], encode_entry(entry))
        opened = set(step.opened)
        for channel, one in step.snapshots.items():
            args += (channel, int(channel in opened), one.epoch, one.seq, one.tag, one.at_ms, one.state)
        answer = await self._run(PUBLISH, *args)
        if answer not in (b"ok", b"taken"):
            raise Fenced(f"step {number} was refused: {answer.decode()}")

    async def close(self, token: str, channels: Iterable[str]) -> list[str]:
        """Remove channels that nobody wishes for; see the port."""
        answer = await self._run(CLOSE, token, *channels)
        if answer == b"fenced":
            raise Fenced("another engine is in charge")
        return [name.decode() for name in answer]

    async def interests(self, known: Mapping[str, str]) -> Interests:
        """Return who wishes for what; see the port."""
        async with _translated():
            raw = await self._redis.hgetall(self._prefix + "gateways")
            versions = {_text(name): _text(version) for name, version in raw.items()}
            pipe = self._redis.pipeline(transaction=False)
            for name, version in versions.items():
                key = f"{self._prefix}w:{name}"
                (pipe.exists if known.get(name) == version else pipe.smembers)(key)
            answers = dict(zip(versions, await pipe.execute(), strict=True)) if versions else {}
        gone = [name for name, answer in answers.items() if not answer]
        if gone:
            await self._run(FORGET, *gone)
        return Interests(
            versions={name: version for name, version in versions.items() if name not in gone},
            changed={
                name: frozenset(one.decode() for one in answer if one)
                for name, answer in answers.items()
                if isinstance(answer, set) and answer
            },
        )

    async def wishes(self) -> AsyncIterator[Sequence[str]]:
        """Yield what gateways begin to wish for; see the port."""
        async for payload in self._listen("wishes"):
            yield () if payload is None else _NAMES.decode(payload)

    # --- a gateway's side -----------------------------------------------------------------------------

    async def announce(self, gateway: str, add: Iterable[str], remove: Iterable[str], ttl_ms: int) -> bool:
        """Change and renew a gateway's wishes; see the port."""
        added = list(add)
        return bool(await self._run(WISH, gateway, ttl_ms, secrets.token_hex(6), len(added), *added, *remove))

    async def leave(self, gateway: str) -> None:
        """Forget a gateway's wishes."""
        async with _translated():
            await self._redis.delete(f"{self._prefix}w:{gateway}")

    async def steps(self) -> AsyncIterator[Heard | None]:
        """Yield steps as they are published; see the port."""
        async for payload in self._listen("steps"):
            yield None if payload is None else decode_heard(payload)

    async def _listen(self, name: str) -> AsyncIterator[bytes | None]:
        """Yield None once the subscription stands, then payloads."""
        channel = self._prefix + name
        async with _translated():
            pubsub: PubSub = self._redis.pubsub()
            try:
                await pubsub.subscribe(channel)
                while True:
                    message = await pubsub.get_message(timeout=math.inf)
                    _end_if_cancelled()
                    if message is None:
                        continue
                    if message["type"] == "subscribe":
                        yield None
                    elif message["type"] == "message":
                        yield message["data"]
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def read(self, places: Mapping[str, Place]) -> Reading:
        """Return channels as of one step; see the port."""
        args: list[Any] = []
        for channel, place in places.items():
            args += (channel, *(place or ("", "")))
        answer = await self._run(READ, *args)
        if not answer:
            return Reading()
        run, number, is_complete, header, age_ms, *found = answer
        return Reading(
            run=run.decode(),
            number=int(number),
            is_complete=is_complete == b"1",
            header=decode_header(header),
            age_s=max(int(age_ms), 0) / 1000,
            channels={name: _held(one) for name, one in zip(places, found, strict=True) if one},
        )


def _held(parts: list[bytes]) -> Held:
    if parts[0] == b"e":
        return Held(snapshot=None, entries=[decode_entry(part.decode()) for part in parts[1:]])
    epoch, seq, tag, at_ms = (part.decode() for part in parts[1:5])
    snapshot = Snapshot(epoch=epoch, seq=int(seq), tag=tag, at_ms=int(at_ms), state=parts[5])
    return Held(snapshot=snapshot, entries=[decode_entry(part.decode()) for part in parts[6:]])


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode()


def _holder(token: str) -> str:
    return token.partition("-")[2]


def _reason(error: Exception) -> str:
    """Return what went wrong, without an address: the library puts none of the password in, but who knows."""
    text = str(error).split("\n")[0]
    return type(error).__name__ if "@" in text or not text else text[:200]


def _end_if_cancelled() -> None:
    """End a task that was told to, though the library went on.

    `asyncio.wait_for` of Python 3.11, which the library uses, returns a result that came together with a
    cancellation, and forgets the latter; and closing a connection may fail while one is on its way.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
        _end_if_cancelled()
    except (RedisError, OSError) as error:
        _end_if_cancelled()
        raise BrokerAway(f"redis: {_reason(error)}") from error
    except (UnicodeDecodeError, msgspec.DecodeError, orjson.JSONDecodeError) as error:
        raise PermanentError(f"redis holds what is not rtserver's: {error}") from error


# For what else is asked of Redis beside a chain's link.
translated: Final = _translated
