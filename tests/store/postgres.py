"""A PostgreSQL server of Debian's package for tests: in a folder of its own, on a free port, gone afterwards."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from rtserver.demo.ports import free_port

__all__ = ["Postgres", "open_postgres"]

# As every rtserver may have one in its URL: tests look for it in logs and errors.
PASSWORD = "s3cret-word"
_FOLDERS = Path("/usr/lib/postgresql")
_START_S = 60


class Postgres:
    """One server.

    Args:
        folder: Its data and log; belongs to whoever runs it.
        somebody: Who runs it: it refuses to be root. None for whoever runs the tests.
    """

    def __init__(self, folder: Path, somebody: pwd.struct_passwd | None) -> None:
        self._folder = folder
        # Replaces itself by the program: signals reach that.
        self._as_user: list[str] = []
        if somebody is not None:
            self._as_user = [
                "setpriv", f"--reuid={somebody.pw_uid}", f"--regid={somebody.pw_gid}", "--clear-groups",
            ]  # fmt: skip
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    def url(self, database: str) -> str:
        """Return a database's URL, as in `store.url`."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self._port}/{database}"

    @property
    def pid(self) -> int:
        """Return the server's process id."""
        assert self._process is not None
        return self._process.pid

    async def initialise(self) -> None:
        """Make the cluster; everyone on this machine may connect, and it lives for a test only."""
        done = await asyncio.create_subprocess_exec(
            *self._as_user, _program("initdb"), "-D", str(self._folder / "data"), "-U", "postgres", "--auth=trust",
            "--no-sync", "--encoding=UTF8", "--locale=C", cwd=self._folder,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await done.communicate()
        assert done.returncode == 0, said.decode()

    async def start(self) -> None:
        """Start, and wait until it takes connections."""
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._as_user, _program("postgres"), "-D", str(self._folder / "data"), "-k", "", "-p", str(self._port),
                "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=40",
                cwd=self._folder, stdout=log, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(_START_S):
            while True:
                assert self._process.returncode is None, (self._folder / "log").read_text()[-2000:]
                try:
                    async with self._connection("postgres"):
                        return
                except (OSError, DBAPIError):
                    await asyncio.sleep(0.05)

    @asynccontextmanager
    async def _connection(self, database: str) -> AsyncIterator[AsyncConnection]:
        url = self.url(database).replace("postgresql:", "postgresql+asyncpg:")
        # Each statement by itself: a database can't be made inside a transaction.
        engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        try:
            async with engine.connect() as connection:
                yield connection
        finally:
            await engine.dispose()

    async def run(self, statement: str, database: str = "postgres") -> None:
        """Run a statement."""
        async with self._connection(database) as connection:
            await connection.execute(text(statement))

    async def rows(self, query: str, database: str) -> list[tuple[object, ...]]:
        """Return what a query finds."""
        async with self._connection(database) as connection:
            return [tuple(row) for row in await connection.execute(text(query))]

    async def new_database(self) -> str:
        """Return the name of a new and empty database."""
        name = f"t{secrets.token_hex(6)}"
        await self.run(f"CREATE DATABASE {name}")
        return name

    async def stop(self, *, at_once: bool = False) -> None:
        """Stop; `at_once` as if the power went away."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        # SIGQUIT: no goodbye, and none of its children is left behind, as SIGKILL would.
        process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
        await process.wait()


@asynccontextmanager
async def open_postgres() -> AsyncIterator[Postgres]:
    """Run a server."""
    # Not under pytest's own folder: that is root's alone, and the server's user has to get in.
    folder = Path(tempfile.mkdtemp(prefix="rtserver-postgres-", dir="/tmp"))
    somebody = None
    if os.geteuid() == 0:
        somebody = _somebody()
        os.chown(folder, somebody.pw_uid, somebody.pw_gid)
    server = Postgres(folder, somebody)
    try:
        await server.initialise()
        await server.start()
        yield server
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _somebody() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("PostgreSQL refuses to run as root, and there is no user to run it as")


def _program(name: str) -> str:
    """Return the path of one of the server's programs, of the newest version there is."""
    found = sorted(_FOLDERS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if found:
        return str(found[-1])
    elsewhere = shutil.which(name)
    assert elsewhere is not None, f"no PostgreSQL here ({name}); `make test` installs it"
    return elsewhere
