"""A real Redis Cluster of a test's own: masters, replicas, and slots that move."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from redis.crc import key_slot

from rtserver.demo.ports import free_port

from .redis_server import RedisServer

__all__ = ["RedisNodesServer", "is_in_step", "is_replica", "takes_writes", "until_true"]

_SLOTS: Final = 16384


async def until_true(condition: Any, within_s: float = 60.0) -> None:
    """Wait until an async condition holds."""
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.02)


class _Node(RedisServer):
    """One process of a Cluster, which listens on a second port for the others."""

    def __init__(self, folder: Path, index: int, timeout_ms: int, full_coverage: str) -> None:
        super().__init__(
            folder, "--cluster-enabled", "yes", "--dir", str(folder), "--cluster-config-file", f"nodes-{index}.conf",
            "--cluster-node-timeout", str(timeout_ms), "--repl-diskless-sync-delay", "0",
            "--cluster-require-full-coverage", full_coverage,
        )  # fmt: skip
        self.bus = 0

    def _options(self) -> list[str]:
        if not self._has_port:
            # By default 10,000 above the port, where there may be nothing left.
            self.bus = free_port()
        return [*super()._options(), "--cluster-port", str(self.bus)]


class RedisNodesServer:
    """redis-server processes that are one Cluster.

    Args:
        folder: For their logs, and what they remember of each other.
        masters: How many share the slots.
        replicas_of: Which of them have a replica.
        spares: How many nodes hold nothing.
        timeout_ms: A node that is silent for so long has failed.
        full_coverage: Whether none serves anything while a slot has no node ("yes", Redis' own default), or the others
            go on ("no").
    """

    def __init__(
        self,
        folder: Path,
        *,
        masters: int = 3,
        replicas_of: Sequence[int] = (),
        spares: int = 0,
        timeout_ms: int = 15_000,
        full_coverage: Literal["yes", "no"] = "no",
    ) -> None:
        self._masters = masters
        self._replicas_of = replicas_of
        count = masters + len(replicas_of) + spares
        self.nodes = [_Node(folder, index, timeout_ms, full_coverage) for index in range(count)]

    @property
    def url(self) -> str:
        """Return the Cluster's address, which names all nodes."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    async def start(self) -> None:
        """Start all nodes, share the slots among the masters, and wait until all of them agree."""
        await asyncio.gather(*(node.start() for node in self.nodes))
        masters, others = self.nodes[: self._masters], self.nodes[self._masters :]
        for index, node in enumerate(masters):
            first, end = (at * _SLOTS // len(masters) for at in (index, index + 1))
            await node.command("CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
            await node.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(end - 1))
        for node in self.nodes[1:]:
            await self.nodes[0].command("CLUSTER", "MEET", "127.0.0.1", str(node.port), str(node.bus))
        await until_true(self._are_met)
        for index, replica in zip(self._replicas_of, others, strict=False):
            await replica.command("CLUSTER", "REPLICATE", await self.id_of(masters[index]))
            await until_true(partial(is_in_step, replica))

    async def _are_met(self) -> bool:
        for node in self.nodes:
            state = _pairs(await node.command("CLUSTER", "INFO"))
            knows = int(state["cluster_known_nodes"]), int(state["cluster_slots_assigned"])
            if state["cluster_state"] != "ok" or knows != (len(self.nodes), _SLOTS):
                return False
        return True

    async def configure(self, name: str, value: str) -> None:
        """Set a value on all nodes."""
        for node in self.nodes:
            await node.command("CONFIG", "SET", name, value)

    async def id_of(self, node: RedisServer) -> str:
        """Return a node's id."""
        return _text(await node.command("CLUSTER", "MYID"))

    async def master_of(self, key: str, ask: RedisServer | None = None) -> RedisServer:
        """Return the node that holds a key's slot, as one of them sees it."""
        slot = key_slot(key.encode())
        found: Any = await (ask or self.nodes[0]).command("CLUSTER", "SLOTS")
        port = next(master[1] for first, last, master, *_ in found if first <= slot <= last)
        return next(one for one in self.nodes if one.port == port)

    async def begin_move(self, key: str, to: RedisServer) -> list[str]:
        """Open a key's slot for its move to another node; return the keys that are in it."""
        slot, node = str(key_slot(key.encode())), await self.master_of(key)
        await to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", await self.id_of(node))
        await node.command("CLUSTER", "SETSLOT", slot, "MIGRATING", await self.id_of(to))
        found: Any = await node.command("CLUSTER", "GETKEYSINSLOT", slot, "100000")
        return [_text(one) for one in found]

    async def move(self, node: RedisServer, to: RedisServer, keys: list[str]) -> None:
        """Move keys of an open slot."""
        if keys:
            await node.command("MIGRATE", "127.0.0.1", str(to.port), "", "0", "5000", "KEYS", *keys)

    async def end_move(self, key: str, to: RedisServer) -> None:
        """Give an empty slot to its new node."""
        slot, name = str(key_slot(key.encode())), await self.id_of(to)
        old = await self.master_of(key)
        for node in (to, old, *(one for one in self.nodes if one not in (to, old))):
            # A replica hears it from its master, and takes no word about slots from anybody else.
            if not await is_replica(node):
                await node.command("CLUSTER", "SETSLOT", slot, "NODE", name)

    async def end(self) -> None:
        """End all nodes."""
        await asyncio.gather(*(node.end() for node in self.nodes))


async def takes_writes(node: RedisServer) -> bool:
    """Return whether a node serves its slots: one that was away waits for two seconds after it is back."""
    return _pairs(await node.command("CLUSTER", "INFO"))["cluster_state"] == "ok"


async def is_replica(node: RedisServer) -> bool:
    """Return whether a node follows another one."""
    info: Any = await node.command("INFO", "replication")
    return bool(info.get("role") == "slave")


async def is_in_step(replica: RedisServer) -> bool:
    """Return whether a node is a replica that has what its master has."""
    info: Any = await replica.command("INFO", "replication")
    return bool(info.get("master_link_status") == "up")


def _pairs(text: Any) -> dict[str, str]:
    return dict(line.split(":", 1) for line in _text(text).splitlines() if ":" in line)


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)
