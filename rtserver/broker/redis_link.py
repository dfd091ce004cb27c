"""The broker over Redis: scripts.py, called; and two subscriptions. Where a key is, is `redis_nodes`' business."""

import math
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from .ports import Fenced, Interests, Place, Reading
from .redis_nodes import RedisNodes
from .scripts import (
    ACQUIRE,
    CLOSE,
    INTERESTS,
    LEAVE,
    PUBLISH,
    READ,
    RELEASE,
    RENEW,
    WIPE,
    WISH,
    Script,
)  # fmt: skip
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

__all__ = ["RedisBroker", "RedisLink"]

# A call that takes longer has failed; a gateway heals and an engine sends again.
_TIMEOUT_S: Final = 3.0
# A chain that no engine has followed for so long is not one that gateways wait for.
_DESCRIBED_S: Final = 24 * 3600
# Changes of wishes that are read at once.
_CHANGES: Final = 1000
_NAMES: Final = msgspec.msgpack.Decoder(list[str])


class RedisBroker:
    """All chains of one Redis.

    Args:
        url: Of a server or a Cluster; see RedisNodes. May hold a password, and is never shown.
        prefix: What all keys begin with, so that several installations can share a Redis.
        timeout_s: The longest that a call may take.

    Raises:
        ConfigError: The address is not one.
    """

    def __init__(self, url: str, prefix: str = "rtserver", timeout_s: float = _TIMEOUT_S) -> None:
        self._prefix = prefix
        self._nodes = RedisNodes(url, timeout_s)

    @property
    def nodes(self) -> RedisNodes:
        """Return the connections, for what is asked of Redis beside a chain's link."""
        return self._nodes

    @property
    def prefix(self) -> str:
        """Return what all keys begin with."""
        return self._prefix

    def chain(self, chain_id: int, shard: int = 0, shards: int = 1) -> "RedisLink":
        """Return the link of a chain, or of one of its shards: these are on different nodes of a Cluster."""
        tag = f"{chain_id}" if shards == 1 else f"{chain_id}:{shard}/{shards}"
        return RedisLink(self._nodes, f"{self._prefix}:{{{tag}}}:")

    async def describe(self, chain_id: int, description: Mapping[str, Any]) -> None:
        """Say that a chain is served, and what gateways tell of it; raises BrokerAway."""
        # Two commands: they may be on two nodes.
        async with self._nodes.asked() as redis:
            await redis.set(f"{self._prefix}:{{{chain_id}}}:about", orjson.dumps(description), ex=_DESCRIBED_S)
            await redis.sadd(f"{self._prefix}:chains", str(chain_id))

    async def described(self) -> dict[int, dict[str, Any]]:
        """Return the chains that engines serve; raises BrokerAway."""
        async with self._nodes.asked() as redis:
            ids = [int(one) for one in await redis.smembers(f"{self._prefix}:chains")]
            texts = {one: await redis.get(f"{self._prefix}:{{{one}}}:about") for one in ids}
        return {one: orjson.loads(text) for one, text in texts.items() if text is not None}

    async def is_led(self, chain_id: int, shards: int) -> bool:
        """Return whether an engine is in charge of a chain that is spread over so many; raises BrokerAway."""
        return any([await self.chain(chain_id, shard, shards).is_led() for shard in range(shards)])

    async def wipe(self, chain_id: int, shards: int) -> None:
        """Forget what a chain was that is not spread over so many any more; raises BrokerAway."""
        for shard in range(shards):
            await self.chain(chain_id, shard, shards).wipe()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._nodes.aclose()


class RedisLink:
    """One chain; see ports.ChainLink. `prefix` holds the hash tag of all its keys."""

    def __init__(self, nodes: RedisNodes, prefix: str) -> None:
        self._nodes = nodes
        self._prefix = prefix
        # They decide the node; a script makes the others of the same tag. Two tell it that it is on a Cluster.
        self._keys: Final = [prefix + "owner", prefix + "head"][: 2 if nodes.is_cluster else 1]
        # Of each gateway, the version of its wishes that was written last.
        self._versions: dict[str, str] = {}

    async def run(self, script: Script, *args: Any) -> Any:
        """Run a script on the chain's keys, the prefix of which is its first argument; raises BrokerAway."""
        return await self._nodes.run(script, self._keys, self._prefix, *args)

    def listen(self, name: str, silence_s: float = math.inf) -> AsyncIterator[bytes | None]:
        """Yield None once a subscription stands, then payloads; raises BrokerAway when it ends; see RedisNodes."""
        return self._nodes.listen(self._prefix + name, silence_s)

    async def is_led(self) -> bool:
        """Return whether an engine has the lease; raises BrokerAway."""
        return await self._nodes.exists(self._prefix + "lease")

    async def wipe(self) -> None:
        """Forget everything but the generation, unless an engine has the lease; raises BrokerAway."""
        await self.run(WIPE)

    # --- the engine's side ----------------------------------------------------------------------------

    async def acquire(self, holder: str, ttl_ms: int) -> str | None:
        """Take the lease; see the port."""
        token = await self.run(ACQUIRE, holder, ttl_ms)
        return None if token is None else token.decode()

    async def renew(self, token: str, ttl_ms: int, number: int = 0) -> bool:
        """Keep the lease; see the port."""
        return bool(await self.run(RENEW, token, _holder(token), ttl_ms, number))

    async def release(self, token: str) -> None:
        """Give the lease back."""
        await self.run(RELEASE, token)

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
        answer = await self.run(PUBLISH, *args)
        if answer not in (b"ok", b"taken"):
            raise Fenced(f"step {number} was refused: {answer.decode()}")

    async def close(self, token: str, channels: Iterable[str]) -> list[str]:
        """Remove channels that nobody wishes for; see the port."""
        answer = await self.run(CLOSE, token, *channels)
        if answer == b"fenced":
            raise Fenced("another engine is in charge")
        return [name.decode() for name in answer]

    async def interests(self, since: str = "") -> Interests:
        """Return what is wished for; see the port."""
        added: set[str] = set()
        removed: set[str] = set()
        is_whole = since == ""
        while True:
            gateways, at, (kind, *found) = await self.run(INTERESTS, since, _CHANGES)
            since = _text(at)
            if kind == b"w":
                # Whatever was read before: this is all there is.
                is_whole, added, removed = True, {name.decode() for name in found[0]}, set()
                break
            for sign, packed in zip(found[::2], found[1::2], strict=True):
                if sign in (b"+", b"-"):
                    names = set(_NAMES.decode(packed))
                    added = added | names if sign == b"+" else added - names
                    removed = removed - names if sign == b"+" else removed | names
            if len(found) < 2 * _CHANGES:
                break
        return Interests(cursor=since, gateways=gateways, is_whole=is_whole, added=added, removed=removed)

    async def wishes(self) -> AsyncIterator[Sequence[str]]:
        """Yield what gateways begin to wish for; see the port."""
        async for payload in self.listen("wishes"):
            yield () if payload is None else _NAMES.decode(payload)

    # --- a gateway's side -----------------------------------------------------------------------------

    async def announce(self, gateway: str, add: Iterable[str], remove: Iterable[str], ttl_ms: int) -> bool:
        """Change and renew a gateway's wishes; see the port."""
        added, removed = list(add), list(remove)
        version = secrets.token_hex(6)
        before = self._versions.get(gateway, "")
        are_all_there = bool(await self.run(WISH, gateway, ttl_ms, version, before, len(added), *added, *removed))
        if added or removed or not are_all_there:
            self._versions[gateway] = version
        return are_all_there

    async def leave(self, gateway: str) -> None:
        """Forget a gateway's wishes."""
        self._versions.pop(gateway, None)
        await self.run(LEAVE, gateway)

    async def steps(self) -> AsyncIterator[Heard | None]:
        """Yield steps as they are published; see the port."""
        async for payload in self.listen("steps"):
            yield None if payload is None else decode_heard(payload)

    async def read(self, places: Mapping[str, Place]) -> Reading:
        """Return channels as of one step; see the port."""
        args: list[Any] = []
        for channel, place in places.items():
            args += (channel, *(place or ("", "")))
        answer = await self.run(READ, *args)
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
