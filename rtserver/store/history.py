"""Records in the database: written in batches, taken back with their blocks, rolled up, and read by windows.

Invariants: the records of a chain are of one branch of it at any time, since a batch first takes back what left the
chain. A record is in exactly one table: it leaves for the next coarser one in the transaction in which it is merged
there, so seconds in range add up over all of them.
"""

import secrets
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, and_, delete, func, literal, select, union_all, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.schema import Table

from ..domain.chain import BlockRef
from ..domain.ids import BlockHash, ChainId, TokenId
from ..protocols.earning import PastSample
from .database import Database
from .history_queries import first_of_steps, last_before, last_of_parts, nearest_priced, whole_numbers
from .records import Bucket, Record, Retention, Rewind, Valued, Vanished, joined
from .store import TakenOver
from .tables import day_records, hour_records, minute_records, sources
from .values import ALONE, generation_of

__all__ = ["HistoryStore"]

# Rows a statement: their parameters are prepared on the event loop, about 4 ms of it.
_ROWS: Final = 400
# Rows that one step rolls up: some ten milliseconds for which other writers of an SQLite file wait.
_STEP: Final = 4000

# From fine to coarse, with the length of a bucket in seconds.
_LEVELS: Final[tuple[tuple[Table, int], ...]] = ((minute_records, 1), (hour_records, 3_600), (day_records, 86_400))
_TAKEN: Final = ("source", "token_id", "active_s", "covered_s")


class HistoryStore:
    """The records of one database.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        # Random, so that it is ours alone.
        self._name = secrets.token_hex(8)
        # As what each chain was claimed, and what it is called there.
        self._writers: dict[ChainId, str] = {}
        self._sources: dict[ChainId, dict[str, int]] = {}
        self._read_sources: dict[tuple[ChainId, str, str], int] = {}
        self._insert = postgresql.insert if database.is_shared else sqlite.insert

    # --- writing --------------------------------------------------------------------------------------

    async def claim(self, chain_id: ChainId, identities: Mapping[str, str], charge: str = ALONE) -> None:
        """Become the one who writes a chain's records: whatever another one writes after this is refused.

        Args:
            chain_id: The chain.
            identities: By protocol, what tells its deployment from others: token ids mean something in one only.
            charge: Of several that take turns, the token of this one's turn, which begins with its generation: who
                sleeps through its turn and then claims gets nothing. Empty where there are no turns.

        Raises:
            StoreError, Foreign: The database can't be written.
            TakenOver: It is written in a later turn than this.
        """
        found: dict[str, int] = {}
        writer = charge or self._name
        async with self._database.transaction() as connection:
            for protocol, identity in sorted(identities.items()):
                row = {"chain_id": str(chain_id), "protocol": protocol, "identity": identity}
                mine = and_(*(sources.c[name] == value for name, value in row.items()))
                before = (await connection.execute(select(sources).where(mine).with_for_update())).one_or_none()
                if before is None:
                    await connection.execute(self._insert(sources).values(**row, writer=writer))
                elif charge and generation_of(before.writer) > generation_of(charge):
                    raise TakenOver(f"another engine is in charge of chain {chain_id} now and keeps its history")
                else:
                    await connection.execute(update(sources).where(mine).values(writer=writer))
                found[protocol] = (await connection.execute(select(sources.c.id).where(mine))).scalar_one()
        self._sources[chain_id] = found
        self._writers[chain_id] = writer

    async def write(self, chain_id: ChainId, rewind: Rewind | None, records: Sequence[Record]) -> None:
        """Take back what left the chain, then add records; all or nothing. Adding one twice changes nothing.

        Raises:
            StoreError: It could not be written now.
            Vanished: The chain has to be claimed again.
            TakenOver: Another process writes this chain now.
            Foreign: The database must not be touched.
        """
        by_protocol = self._sources[chain_id]
        ids = list(by_protocol.values())
        async with self._database.transaction() as connection:
            await self._prove_mine(connection, chain_id)
            if rewind is not None:
                gone = delete(minute_records).where(
                    minute_records.c.source.in_(ids),
                    minute_records.c.at >= rewind.since,
                    minute_records.c.block > rewind.number,
                )
                await connection.execute(gone)
            statement = self._insert(minute_records).on_conflict_do_nothing()
            remaining = iter(records)
            while part := list(islice(remaining, _ROWS)):
                await connection.execute(statement, [_row(by_protocol[record.protocol], record) for record in part])

    async def _prove_mine(self, connection: AsyncConnection, chain_id: ChainId) -> None:
        by_protocol = self._sources[chain_id]
        ids = list(by_protocol.values())
        # Until the end of the transaction nobody else can claim it.
        known = select(sources).where(sources.c.id.in_(ids)).order_by(sources.c.id).with_for_update(read=True)
        rows = await connection.execute(known)
        writers = {row.protocol: row.writer for row in rows if row.chain_id == str(chain_id)}
        if writers.keys() != by_protocol.keys():
            self._read_sources.clear()
            raise Vanished(f"what was kept of chain {chain_id} is gone")
        if set(writers.values()) != {self._writers[chain_id]}:
            raise TakenOver(f"another process keeps the history of chain {chain_id} now")

    async def newest(self, chain_id: ChainId, until: int | None = None) -> tuple[BlockRef, int] | None:
        """Return the block and the timestamp of the chain's newest record, of those not after `until`.

        Raises:
            StoreError, Foreign: The database can't be read.
        """
        ids = list(self._sources[chain_id].values())
        best: tuple[BlockRef, int] | None = None
        async with self._database.reading() as connection:
            for table, _ in _LEVELS:
                query = select(table.c.block, table.c.hash, table.c.at).where(table.c.source.in_(ids))
                if until is not None:
                    query = query.where(table.c.at <= until)
                row = (
                    await connection.execute(query.order_by(table.c.at.desc(), table.c.block.desc()).limit(1))
                ).one_or_none()
                if row is not None and (best is None or row.at > best[1]):
                    best = BlockRef(number=row.block, hash=BlockHash(row.hash)), row.at
        return best

    async def ends(self, chain_id: ChainId, since: int) -> dict[tuple[str, TokenId], tuple[int, int]]:
        """Return timestamp and height of each position's newest record, where that is not before a time in seconds.

        Raises:
            StoreError, Foreign: The database can't be read.
        """
        protocols = {source: protocol for protocol, source in self._sources[chain_id].items()}
        found: dict[tuple[str, TokenId], tuple[int, int]] = {}
        async with self._database.reading() as connection:
            for table, _ in _LEVELS:
                # Of one branch, so that the latest is the highest.
                newest = (
                    select(table.c.source, table.c.token_id, func.max(table.c.at), func.max(table.c.block))
                    .where(table.c.source.in_(list(protocols)), table.c.at >= since)
                    .group_by(table.c.source, table.c.token_id)
                )
                for source, token_id, at, block in await connection.execute(newest):
                    key = protocols[source], TokenId(int(token_id))
                    found[key] = max(found.get(key, (at, block)), (at, block))
        return found

    async def drop_after(self, chain_id: ChainId, rewind: Rewind | None) -> int:
        """Delete the records of blocks that are not on the chain any more, at every level; all of them for None.

        Raises:
            StoreError, TakenOver, Foreign: As `write`.
        """
        ids = list(self._sources[chain_id].values())
        count = 0
        async with self._database.transaction() as connection:
            await self._prove_mine(connection, chain_id)
            for table, _ in _LEVELS:
                gone = delete(table).where(table.c.source.in_(ids))
                if rewind is not None:
                    gone = gone.where(table.c.at >= rewind.since, table.c.block > rewind.number)
                count += (await connection.execute(gone)).rowcount
        return count

    # --- rolling up -----------------------------------------------------------------------------------

    async def roll_up(self, chain_id: ChainId, retention: Retention) -> int:
        """Merge a bounded number of the oldest records into the next coarser level; return how many were moved.

        Records that are written later have to be newer. Call it until it returns 0.

        Raises:
            StoreError, TakenOver, Foreign: As `write`.
        """
        count = 0
        untils = (retention.minutes_until, retention.hours_until)
        async with self._database.transaction() as connection:
            await self._prove_mine(connection, chain_id)
            for source in self._sources[chain_id].values():
                for (fine, _), (coarse, length), until in zip(_LEVELS, _LEVELS[1:], untils, strict=False):
                    last = await self._oldest_part(connection, fine, source, until)
                    if last is not None:
                        await connection.execute(self._merge(fine, coarse, length, source, last))
                        count += await self._delete_until(connection, fine, source, last)
                last = await self._oldest_part(connection, day_records, source, retention.days_until)
                if last is not None:
                    count += await self._delete_until(connection, day_records, source, last)
        return count

    @staticmethod
    async def _oldest_part(connection: AsyncConnection, table: Table, source: int, until: int) -> int | None:
        """Return the time up to which the oldest records before `until` are about a step's worth."""
        oldest = select(table.c.at).where(table.c.source == source, table.c.at < until).order_by(table.c.at)
        part = oldest.limit(_STEP).subquery()
        found: int | None = (await connection.execute(select(func.max(part.c.at)))).scalar()
        return found

    @staticmethod
    async def _delete_until(connection: AsyncConnection, table: Table, source: int, last: int) -> int:
        done = await connection.execute(delete(table).where(table.c.source == source, table.c.at <= last))
        return done.rowcount

    def _merge(self, fine: Table, coarse: Table, length: int, source: int, last: int) -> Insert:
        """Return what adds records to their buckets: the newest values, and the sums of the seconds."""
        # A literal, not a parameter: PostgreSQL takes two parameters for two different things to group by.
        bucket: ColumnElement[int] = fine.c.at // literal(length, literal_execute=True)
        grouped = (
            select(
                fine.c.token_id,
                bucket.label("bucket"),
                func.max(fine.c.at).label("at"),
                func.max(fine.c.block).label("block"),
                func.sum(fine.c.active_s).label("active_s"),
                func.sum(fine.c.covered_s).label("covered_s"),
            )
            .where(fine.c.source == source, fine.c.at <= last)
            .group_by(fine.c.token_id, bucket)
            .subquery()
        )
        values = [column.name for column in minute_records.columns if column.name not in _TAKEN]
        rows = (
            select(
                fine.c.source, fine.c.token_id, grouped.c.bucket, *(fine.c[name] for name in values),
                grouped.c.active_s, grouped.c.covered_s,
            )
            .join(
                grouped,
                and_(
                    fine.c.token_id == grouped.c.token_id,
                    fine.c.at == grouped.c.at,
                    fine.c.block == grouped.c.block,
                ),
            )
            .where(fine.c.source == source, fine.c.at <= last)
        )  # fmt: skip
        names = ["source", "token_id", "bucket", *values, "active_s", "covered_s"]
        insert = self._insert(coarse).from_select(names, rows)
        return insert.on_conflict_do_update(
            index_elements=["source", "token_id", "bucket"],
            set_={name: insert.excluded[name] for name in values}
            | {name: coarse.c[name] + insert.excluded[name] for name in ("active_s", "covered_s")},
        )

    # --- reading --------------------------------------------------------------------------------------

    async def window(
        self,
        place: tuple[ChainId, str, str],
        token_id: TokenId,
        *,
        start: int,
        end: int,
        step: int,
        below: int,
    ) -> list[Bucket]:
        """Return the last record of each part of a window, oldest first, after the last one before the window.

        Args:
            place: Chain, protocol and the deployment's identity.
            token_id: The position.
            start: The window begins after this, in seconds.
            end: It ends with this.
            step: Seconds a part.
            below: Only records of blocks under this.

        Raises:
            StoreError, Foreign: The database can't be read.
        """
        async with self._database.reading() as connection:
            source = await self._source(connection, place)
            if source is None:
                return []
            token = str(token_id)
            # One statement: a record that is rolled up meanwhile is seen once.
            parts = [last_of_parts(*level, source, token, start, end, step, below) for level in _LEVELS]
            found = [Bucket(**whole_numbers(row)) for row in (await connection.execute(union_all(*parts))).mappings()]
            for table, length in _LEVELS:
                query = last_before(table, length, source, token, start, below)
                row = (await connection.execute(query)).mappings().one_or_none()
                if row is not None:
                    found.append(Bucket(slot=-1, begins=row["at"], active_s=0, covered_s=0, **row))
                    break
        return joined(sorted(found, key=lambda bucket: (bucket.at, bucket.block)))

    async def samples(
        self,
        place: tuple[ChainId, str, str],
        token_ids: Sequence[TokenId],
        parts: Sequence[tuple[int, int, int]],
        below: int,
    ) -> dict[TokenId, list[PastSample]]:
        """Return the first record of some positions in each step of some parts of time, oldest first.

        Args:
            place: Chain, protocol and the deployment's identity.
            token_ids: The positions, at most some hundred.
            parts: (after, until, step), in seconds; apart from each other.
            below: Only records of blocks under this.

        Raises:
            StoreError, Foreign: The database can't be read.
        """
        found: dict[TokenId, list[PastSample]] = {}
        async with self._database.reading() as connection:
            source = await self._source(connection, place)
            if source is None:
                return found
            tokens = [str(token_id) for token_id in token_ids]
            queries = [first_of_steps(*level, source, tokens, part, below) for level in _LEVELS for part in parts]
            rows = (await connection.execute(union_all(*queries))).all()
        for row in sorted(rows, key=lambda row: (row.at, row.block)):
            found.setdefault(TokenId(int(row.token_id)), []).append(
                PastSample(
                    timestamp=row.at, earned0=_int(row.earned0), earned1=_int(row.earned1),
                    value_cents=_int(row.value_cents),
                )
            )  # fmt: skip
        return found

    async def nearest(
        self, place: tuple[ChainId, str, str], token_ids: Sequence[TokenId], *, at: int, within: int, below: int
    ) -> Valued | None:
        """Return the record with a value that is nearest to a time, of any of some positions; None where none is near.

        Args:
            place: Chain, protocol and the deployment's identity.
            token_ids: The positions, at most some ten.
            at: The time in seconds.
            within: How far away it may be, in seconds.
            below: Only records of blocks under this.

        Raises:
            StoreError, Foreign: The database can't be read.
        """
        async with self._database.reading() as connection:
            source = await self._source(connection, place)
            if source is None:
                return None
            tokens = [str(token_id) for token_id in token_ids]
            for level in _LEVELS:
                row = (
                    await connection.execute(nearest_priced(*level, source, tokens, at, within, below))
                ).one_or_none()
                if row is not None:
                    return Valued(
                        timestamp=row.at, value_cents=int(row.value_cents), amount0=int(row.amount0),
                        amount1=int(row.amount1), sqrt_price_x96=int(row.sqrt_price),
                    )  # fmt: skip
        return None

    async def _source(self, connection: AsyncConnection, place: tuple[ChainId, str, str]) -> int | None:
        known = self._read_sources.get(place)
        if known is None:
            chain_id, protocol, identity = place
            query = select(sources.c.id).where(
                sources.c.chain_id == str(chain_id), sources.c.protocol == protocol, sources.c.identity == identity
            )
            known = (await connection.execute(query)).scalar()
            if known is not None:
                self._read_sources[place] = known
        return known


def _int(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _row(source: int, record: Record) -> dict[str, Any]:
    sample = record.sample
    rewards = sample.rewards
    return {
        "source": source,
        "token_id": str(sample.token_id),
        "at": record.timestamp,
        "block": record.block.number,
        "hash": record.block.hash,
        "liquidity": str(sample.liquidity),
        "inside0": str(sample.inside0),
        "inside1": str(sample.inside1),
        "amount0": str(sample.amount0),
        "amount1": str(sample.amount1),
        "fees0": _text(sample.fees0),
        "fees1": _text(sample.fees1),
        "earned0": _text(sample.earned0),
        "earned1": _text(sample.earned1),
        "sqrt_price": str(sample.sqrt_price_x96),
        "tick": sample.tick,
        "is_active": sample.is_active,
        "value_cents": _text(sample.value_cents),
        "fees_cents": _text(sample.fees_cents),
        "rewards": None
        if rewards is None
        else orjson.dumps({token: str(amount) for token, amount in rewards.items()}).decode(),
        "price": record.price,
        "active_s": record.active_s,
        "covered_s": record.covered_s,
    }
