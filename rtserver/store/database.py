"""The database itself: opened, checked and brought to the newest schema, or set aside with a reason.

Knows files, drivers and schemas, and nothing of what the rows mean. A broken file is moved away and a new one
begun; a file that can't be had now (locked) is tried again by whoever writes next; one that must not be touched
(written by a newer version, or not ours at all) is left alone.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from enum import Enum
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import event, inspect, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from ..domain.errors import ConfigError, PermanentError, RetryableError

__all__ = ["SCHEMA", "Database", "Foreign", "StoreError", "sqlite_url"]

log = structlog.get_logger(__name__)

# The newest schema; a test holds it to the newest file in migrations/versions. Asking alembic for it would
# import alembic at each start: a quarter of a second for nothing.
SCHEMA: Final = "0002"
_VERSION_TABLE: Final = "rtserver_schema"
# Looking through a file before it is used takes a second a gigabyte: of a larger one damage shows when it is met.
_CHECKED_BYTES: Final = 64 << 20
# Another process may be in the middle of a checkpoint; longer than that takes something that isn't ours.
_BUSY_S: Final = 2.0
# A process that stops for longer in the middle of a transaction loses its connection: it would keep the next one from
# writing. Between two statements there are milliseconds.
_IDLE_MS: Final = 10_000


class StoreError(RetryableError):
    """The database could not be read or written; it may work later."""


class Foreign(PermanentError):
    """The database is of a newer version, or of something else: it is not touched."""


class _Fault(Enum):
    BROKEN = "broken"
    BUSY = "busy"
    OTHER = "other"


def sqlite_url(path: Path) -> str:
    """Return the URL of a file."""
    return URL.create("sqlite+aiosqlite", database=str(path)).render_as_string(hide_password=False)


class Database:
    """One database.

    Args:
        url: An SQLAlchemy URL; `sqlite` and `postgresql` get the driver that is used here when they name none.

    Raises:
        ConfigError: The URL is none, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
            parsed = parsed.set(drivername=drivers.get(parsed.drivername, parsed.drivername))
            # A connection a checkpoint: nothing to go stale between two, and a deleted file is noticed.
            self._engine = create_async_engine(parsed, poolclass=NullPool)
        except (ArgumentError, ImportError, SQLAlchemyError) as error:
            # Its text may quote the URL, and so a password.
            raise ConfigError(f"store.url: not a database that can be used here ({type(error).__name__})") from error
        self.path = Path(parsed.database) if parsed.drivername.startswith("sqlite") and parsed.database else None
        self.name = str(self.path) if self.path is not None else f"{parsed.drivername}://{parsed.host}"
        self._is_open = False
        self._opening = asyncio.Lock()
        # Whether a page of it was found to be damaged, or may be.
        self._is_suspect = False
        # SQLite has one writer at a time, and gives up on waiting sooner than we should.
        self._turn: AbstractAsyncContextManager[None] = nullcontext() if self.path is None else asyncio.Lock()
        if self.path is not None:
            event.listen(self._engine.sync_engine, "connect", _set_up_sqlite)

    @property
    def is_shared(self) -> bool:
        """Return whether engines on several machines may use it: an SQLite file is one engine's own."""
        return self.path is None

    @property
    def engine(self) -> AsyncEngine:
        """Return the engine, for tests."""
        return self._engine

    def check_writable(self) -> None:
        """Make sure that the file can be written, making its folder; a server's database is asked later.

        Raises:
            ConfigError: It can't, and why.
        """
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path.open("ab"):
                pass
            # Beside it come the log and its index.
            probe = self.path.with_name(self.path.name + ".probe")
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ConfigError(f"store.path = {str(self.path)!r}: cannot be written: {error.strerror}") from error

    async def ping(self) -> None:
        """Ask for a sign of life, and change nothing.

        Raises:
            StoreError: There is none.
        """
        with self._translated():
            async with self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

    async def open(self) -> None:
        """Bring the database to the newest schema. Cheap where that is done already.

        Raises:
            StoreError: It can't be had now.
            Foreign: It must not be touched.
        """
        if self._is_open:
            return
        async with self._opening:
            if not self._is_open:
                await self._open()
                self._is_open = True

    async def _open(self) -> None:
        try:
            await self._prepare()
        except _Broken as error:
            if self.path is None:
                raise StoreError(str(error)) from error
            self._move_aside(str(error))
            try:
                await self._prepare()
            except _Broken as again:
                raise StoreError(str(again)) from again

    async def _prepare(self) -> None:
        try:
            async with self._engine.connect() as connection:
                if self._is_to_be_checked():
                    found = (await connection.execute(text("PRAGMA quick_check(1)"))).scalar()
                    if found != "ok":
                        raise _Broken(str(found)[:200])
                    self._is_suspect = False
                version, tables = await connection.run_sync(_version)
                if version is None and tables - {_VERSION_TABLE}:
                    raise Foreign(f"{self.name} holds other tables ({', '.join(sorted(tables)[:3])})")
                if version is not None and version > SCHEMA:
                    raise Foreign(f"{self.name} was written by a newer version (schema {version}, here {SCHEMA})")
                if self.path is not None:
                    # Stays with the file; so not before it is known to be ours.
                    await connection.execute(text("PRAGMA journal_mode=WAL"))
                if version != SCHEMA:
                    await connection.run_sync(_migrate)
                    await connection.commit()
        except (SQLAlchemyError, OSError, sqlite3.Error) as error:
            raise self._explained(error) from error

    def _is_to_be_checked(self) -> bool:
        if self.path is None:
            return False
        return self._is_suspect or not self.path.exists() or self.path.stat().st_size <= _CHECKED_BYTES

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for one transaction: all of it is written, or nothing. A file has one at a time.

        Raises:
            StoreError: It could not be.
        """
        async with self._turn:
            await self.open()
            with self._translated():
                async with self._engine.begin() as connection:
                    if self.is_shared:
                        await connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {_IDLE_MS}"))
                    else:
                        # Otherwise it begins with the first statement that writes, and what was read before is stale.
                        await connection.exec_driver_sql("BEGIN IMMEDIATE")
                    yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection to read; nobody waits for it, and it waits for no writer.

        Raises:
            StoreError: It could not be.
        """
        await self.open()
        with self._translated():
            async with self._engine.connect() as connection:
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, OSError, sqlite3.Error) as error:
            # Whatever it was: look at the file anew before the next try.
            self._is_open = False
            explained = self._explained(error)
            self._is_suspect = isinstance(explained, _Broken)
            raise explained from error

    def _explained(self, error: Exception) -> "StoreError | _Broken":
        cause = getattr(error, "orig", None) or error
        reason = f"{self.name}: {str(cause)[:200]}"
        return _Broken(reason) if _fault(cause) is _Fault.BROKEN else StoreError(reason)

    def _move_aside(self, reason: str) -> None:
        assert self.path is not None
        aside = self.path.with_name(self.path.name + ".broken")
        try:
            self.path.replace(aside)
            for suffix in ("-wal", "-shm", "-journal"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path}: broken, and cannot be moved aside: {error.strerror}") from error
        log.warning("store is broken, begun anew", path=str(self.path), moved_to=str(aside), reason=reason)

    async def close(self) -> None:
        """Close what is open."""
        await self._engine.dispose()


class _Broken(StoreError):
    """The file holds no database, or a damaged one."""


def _fault(cause: BaseException) -> _Fault:
    code = getattr(cause, "sqlite_errorcode", None)
    if code is None:
        return _Fault.OTHER
    # The low byte is the primary code.
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _Fault.BROKEN
    return _Fault.BUSY if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) else _Fault.OTHER


def _set_up_sqlite(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(_BUSY_S * 1000)}")
    # A commit that returned survives a power cut: that streams were taken out must not be forgotten.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _version(connection: Connection) -> tuple[str | None, set[str]]:
    tables = set(inspect(connection).get_table_names())
    if _VERSION_TABLE not in tables:
        return None, tables
    return connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar(), tables


def _migrate(connection: Connection) -> None:
    # Imported where it is needed: once after an update.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
