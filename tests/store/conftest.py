"""Both databases, for tests that hold for either."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy import text

from rtserver.store.database import Database, sqlite_url

from .postgres import Postgres, open_postgres


@dataclass(frozen=True, slots=True)
class Place:
    """An empty database of a kind; `name` is that of a file or of a server's database."""

    kind: Literal["sqlite", "postgresql"]
    url: str
    name: str


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[Postgres]:
    """A server for the session; whoever stops it starts it again."""
    async with open_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> Place:
    """An empty database, of each kind in turn."""
    if request.param == "sqlite":
        path = tmp_path / "store.sqlite3"
        return Place("sqlite", sqlite_url(path), str(path))
    name = await postgres.new_database()
    return Place("postgresql", postgres.url(name), name)


async def until_someone_waits(place: Place) -> None:
    """Wait until a transaction in a server's database waits for another."""
    database = Database(place.url)
    async with database.reading() as connection:
        waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = :name")
        while not (await connection.execute(waiting, {"name": place.name})).scalar():
            # What is told of activity is of one moment within a transaction.
            await connection.rollback()
    await database.close()
