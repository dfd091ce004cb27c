"""What can be wrong with a server's database, and with the server: a line in the log, tried again, never touched."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from rtserver.domain.chain import BlockRef
from rtserver.domain.ids import BlockHash, ChainId
from rtserver.store.database import Database, Foreign, StoreError
from rtserver.store.opening import open_store
from rtserver.store.store import Store
from rtserver.store.values import Changes

from .postgres import PASSWORD, Postgres

CHAIN = ChainId(1)


def changes(value: int) -> Changes:
    window = (BlockRef(number=1, hash=BlockHash("0x1")),)
    return Changes(is_whole=True, window=window, facts=[("book", {"a": value})])


@pytest.fixture
async def name(postgres: Postgres) -> str:
    return await postgres.new_database()


@pytest.fixture
async def store(postgres: Postgres, name: str) -> AsyncIterator[Store]:
    made = Store(Database(postgres.url(name)))
    yield made
    await made.close()


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_server_that_goes_and_comes_back(postgres: Postgres, store: Store, at_once: bool) -> None:
    await store.save(CHAIN, "here", changes(1))
    await postgres.stop(at_once=at_once)
    try:
        with pytest.raises(StoreError) as raised:
            await store.save(CHAIN, "here", changes(2))
        assert PASSWORD not in str(raised.value)
    finally:
        await postgres.start()
    await store.save(CHAIN, "here", changes(3))
    found = await store.load(CHAIN, "here")
    assert found is not None and found.facts["book"] == {"a": 3}


async def test_a_server_that_is_away_at_the_start(postgres: Postgres, name: str) -> None:
    await postgres.stop()
    try:
        with capture_logs() as logs:
            opened = await open_store(postgres.url(name), None, {})
    finally:
        await postgres.start()
    assert [entry["event"] for entry in logs] == ["store can't be used yet"]
    assert PASSWORD not in str(logs)
    assert opened is not None
    await opened.save(CHAIN, "here", changes(1))
    assert await opened.load(CHAIN, "here") is not None
    await opened.close()


async def test_a_database_that_there_is_not(postgres: Postgres) -> None:
    store = Store(Database(postgres.url("nowhere")))
    with pytest.raises(StoreError, match="does not exist") as raised:
        await store.load(CHAIN, "here")
    assert PASSWORD not in str(raised.value)
    await store.close()


async def test_a_newer_version_s_database_is_left_alone(postgres: Postgres, name: str, store: Store) -> None:
    await store.save(CHAIN, "here", changes(1))
    await postgres.run("UPDATE rtserver_schema SET version_num = '9999'", name)
    again = Store(Database(postgres.url(name)))
    with pytest.raises(Foreign, match="newer version"):
        await again.load(CHAIN, "here")
    await again.close()
    assert await postgres.rows("SELECT count(*) FROM rtserver_fact", name) == [(1,)]


async def test_another_program_s_database_is_left_alone(postgres: Postgres, name: str, store: Store) -> None:
    await postgres.run("CREATE TABLE bookmarks (url TEXT)", name)
    with pytest.raises(Foreign, match="bookmarks"):
        await store.save(CHAIN, "here", changes(1))
    found = await postgres.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name)
    assert found == [("bookmarks",)]
