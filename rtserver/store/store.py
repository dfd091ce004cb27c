"""Checkpoints in the database: read once at the start, written in one transaction each.

Invariant: what is in the database for a chain is one consistent checkpoint of it, or nothing. A process may
write a chain only while it is the last one that took it over, or, of those that take turns, while no later turn than
its own has written; it notices when it may not.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final
from zlib import crc32

import orjson
import structlog
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..domain.chain import BlockRef
from ..domain.errors import PermanentError
from ..domain.ids import BlockHash, ChainId
from ..domain.shards import named
from .database import Database, StoreError
from .tables import chains, facts, streams
from .values import ALONE, Changes, Checkpoint, KeptStream, generation_of

__all__ = ["FORMAT", "Store", "TakenOver"]

log = structlog.get_logger(__name__)

# What the facts look like. Another one is not read: knowing nothing is better than knowing it wrong.
FORMAT: Final = 1
# A stream goes on as long as its ring would have: see hub.stream.
STREAM_S: Final = 120.0
# Rows a statement. Their parameters are prepared on the event loop: about a millisecond of it.
_ROWS: Final = 400


class TakenOver(PermanentError):
    """Another process writes this chain; it is not ours any more."""


class Store:
    """The checkpoints of one database.

    Args:
        database: Where they are.
        wall_ms: Milliseconds since the epoch.
        label: Whose part of each chain it is, where engines share them; see domain.shards.
    """

    def __init__(
        self, database: Database, wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000, label: str = ""
    ) -> None:
        self._database = database
        self._label = label
        self._wall_ms = wall_ms
        # Random, so that it is ours alone.
        self._writer = secrets.token_hex(8)
        self._claimed: set[ChainId] = set()

    @property
    def database(self) -> Database:
        """Return where they are."""
        return self._database

    def _key(self, chain_id: ChainId) -> str:
        return named(str(chain_id), self._label)

    async def load(self, chain_id: ChainId, identity: str, *, takes_over: bool = True) -> Checkpoint | None:
        """Return the chain's last checkpoint; take the chain over, and its streams, which are handed out once.

        Args:
            chain_id: The chain.
            identity: What the facts depend on: the deployment. Facts of another one are not returned.
            takes_over: False for one that writes in turns with others: it only reads, and its streams begin anew.

        Raises:
            StoreError, Foreign: The database can't be read, or holds nonsense.
        """
        key = self._key(chain_id)
        async with self._database.transaction() as connection:
            # Nobody writes the chain until it is read: window and facts are of one checkpoint.
            newest = select(chains).where(chains.c.chain_id == key).with_for_update()
            row = (await connection.execute(newest)).one_or_none()
            if row is None:
                return None
            if (row.identity, row.format) != (identity, FORMAT):
                log.info("kept state is of another deployment or version", chain_id=chain_id)
                return None
            kept = await connection.execute(
                select(facts.c.part, facts.c.name, facts.c.value).where(facts.c.chain_id == key)
            )
            known: dict[str, dict[str, Any]] = {}
            try:
                for part, name, value in kept:
                    known.setdefault(part, {})[name] = _proved(f"{key} {part} {name}", value)
                window = tuple(
                    BlockRef(number=number, hash=BlockHash(name)) for number, name in orjson.loads(row.blocks)
                )
                going_on = await self._take_streams(connection, key, row.saved_ms) if takes_over else {}
            except (ValueError, TypeError) as error:
                raise StoreError(f"kept state of chain {chain_id} is not readable: {error}") from error
            if takes_over:
                await connection.execute(update(chains).where(chains.c.chain_id == key).values(writer=self._writer))
        if takes_over:
            # Committed: whatever happens from here on, no other process can go on with the same streams.
            self._claimed.add(chain_id)
        return Checkpoint(window=window, facts=known, streams=going_on) if window else None

    async def _take_streams(self, connection: AsyncConnection, key: str, saved_ms: int) -> dict[str, KeptStream]:
        age_s = (self._wall_ms() - saved_ms) / 1000
        found: dict[str, KeptStream] = {}
        if 0 <= age_s <= STREAM_S:
            for row in await connection.execute(select(streams).where(streams.c.chain_id == key)):
                found[row.channel] = KeptStream(
                    epoch=row.epoch, seq=row.seq, tag=row.tag, state=_proved(f"{key} {row.channel}", row.state)
                )
        await connection.execute(delete(streams).where(streams.c.chain_id == key))
        return found

    async def save(self, chain_id: ChainId, identity: str, changes: Changes) -> None:
        """Write changes, all or nothing.

        Raises:
            StoreError: They could not be written; the next write has to be whole.
            TakenOver: Another process writes this chain now, or has written it in a later turn.
            Foreign: The database must not be touched.
        """
        key = self._key(chain_id)
        row = {
            "identity": identity,
            "format": FORMAT,
            "writer": changes.charge or self._writer,
            "blocks": orjson.dumps([(block.number, block.hash) for block in changes.window]).decode(),
            "saved_ms": self._wall_ms(),
        }
        async with self._database.transaction() as connection:
            # Until the end of it nobody else can write the chain.
            known = select(chains.c.writer).where(chains.c.chain_id == key).with_for_update()
            before = (await connection.execute(known)).scalar_one_or_none()
            self._prove_mine(chain_id, before, changes)
            if before is None:
                await connection.execute(insert(chains).values(chain_id=key, **row))
            else:
                await connection.execute(update(chains).where(chains.c.chain_id == key).values(**row))
            await self._write_facts(connection, key, changes)
            await connection.execute(delete(streams).where(streams.c.chain_id == key))
            for part in _batches(
                {
                    "chain_id": key, "channel": channel, "epoch": stream.epoch, "seq": stream.seq, "tag": stream.tag,
                    "state": _sealed(f"{key} {channel}", stream.state),
                }
                for channel, stream in changes.streams.items()
            ):  # fmt: skip
                await connection.execute(insert(streams), part)
        if changes.charge == ALONE:
            self._claimed.add(chain_id)

    def _prove_mine(self, chain_id: ChainId, before: str | None, changes: Changes) -> None:
        charge = changes.charge
        if before is None:
            if not changes.is_whole:
                raise StoreError(f"what was kept of chain {chain_id} is gone")
        elif charge == ALONE:
            if chain_id in self._claimed and before != self._writer:
                raise TakenOver(f"another process keeps chain {chain_id} now")
        elif generation_of(before) > generation_of(charge):
            raise TakenOver(f"another engine is in charge of chain {chain_id} now and keeps it")
        elif before != charge and not changes.is_whole:
            # Its facts and ours would be mixed.
            raise StoreError(f"another process has kept chain {chain_id} meanwhile")

    @staticmethod
    async def _write_facts(connection: AsyncConnection, key: str, changes: Changes) -> None:
        if changes.is_whole:
            await connection.execute(delete(facts).where(facts.c.chain_id == key))
        gone = delete(facts).where(
            facts.c.chain_id == key, facts.c.part == bindparam("of"), facts.c.name == bindparam("called")
        )
        for part, known in changes.facts:
            if not changes.is_whole:
                # An old row goes before its new one comes: the same on every database, unlike an upsert.
                for names in _batches({"of": part, "called": name} for name in known):
                    await connection.execute(gone, names)
            for rows in _batches(_rows(key, part, known)):
                await connection.execute(insert(facts), rows)

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()


def _sealed(name: str, value: Any) -> str:
    """Return JSON behind a checksum: a database notices broken pages, not a digit that turned into another one."""
    text = orjson.dumps(value)
    return f"{crc32(text, crc32(name.encode())):08x}{text.decode()}"


def _proved(name: str, value: str) -> Any:
    text = value[8:].encode()
    if value[:8] != f"{crc32(text, crc32(name.encode())):08x}":
        raise ValueError(f"{name} is damaged")
    return orjson.loads(text)


def _rows(key: str, part: str, known: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, value in known.items():
        if value is not None:
            yield {"chain_id": key, "part": part, "name": name, "value": _sealed(f"{key} {part} {name}", value)}


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, _ROWS)):
        yield batch
