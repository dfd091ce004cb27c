"""The database on its own: checkpoints in and out, and every way in which a file can be wrong."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from rtserver.domain.chain import BlockRef
from rtserver.domain.errors import ConfigError
from rtserver.domain.ids import BlockHash, ChainId
from rtserver.store import database as database_module
from rtserver.store.database import SCHEMA, Database, Foreign, StoreError, sqlite_url
from rtserver.store.opening import default_path, open_store
from rtserver.store.store import Store, TakenOver
from rtserver.store.tables import METADATA
from rtserver.store.values import CHANNELS, Changes, KeptStream

from .conftest import Place, until_someone_waits

CHAIN = ChainId(2**200)
WINDOW = tuple(BlockRef(number=number, hash=BlockHash(f"0x{number:064x}")) for number in range(7, 10))
STREAM = KeptStream(epoch="abc1", seq=2**40, tag="00ff", state={"1": {"tick": -5, "amount0": "12", "symbol": "Ω"}})


def changes(facts: dict[str, Any], *, whole: bool = True, **options: Any) -> Changes:
    return Changes(is_whole=whole, window=WINDOW, facts=[(CHANNELS, {"head:1": 1}), ("book", facts)], **options)


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def unlink_all(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store.sqlite3"


@asynccontextmanager
async def making(url: str) -> AsyncIterator[Callable[..., Store]]:
    """Make stores on one database; they are closed in the end."""
    made: list[Store] = []

    def one(**options: Any) -> Store:
        opened = Database(url)
        opened.check_writable()
        made.append(Store(opened, **options))
        return made[-1]

    yield one
    for store in made:
        await store.close()


@pytest.fixture
async def make(place: Place) -> AsyncIterator[Callable[..., Store]]:
    """Make stores on one database, of either kind."""
    async with making(place.url) as one:
        yield one


@pytest.fixture
async def make_file(path: Path) -> AsyncIterator[Callable[..., Store]]:
    """Make stores on one file."""
    async with making(sqlite_url(path)) as one:
        yield one


async def test_a_checkpoint_comes_back(make: Callable[..., Store]) -> None:
    assert await make().load(CHAIN, "here") is None
    many = {f"n:{index}": ["0xabc", index, None] for index in range(1000)}
    await make().save(CHAIN, "here", changes(many))
    found = await make().load(CHAIN, "here")
    assert found is not None
    assert found.window == WINDOW
    assert found.facts == {CHANNELS: {"head:1": 1}, "book": many}
    assert not found.streams


async def test_changes_replace_add_and_remove(make: Callable[..., Store]) -> None:
    store = make()
    await store.save(CHAIN, "here", changes({"a": 1, "b": 2}))
    await store.save(CHAIN, "here", changes({"a": None, "b": 3, "c": 4, "never": None}, whole=False))
    await store.save(ChainId(1), "here", changes({"other": 1}))
    found = await make().load(CHAIN, "here")
    assert found is not None and found.facts["book"] == {"b": 3, "c": 4}
    await store.save(ChainId(1), "here", changes({"whole": 1}))
    other = await make().load(ChainId(1), "here")
    assert other is not None and other.facts["book"] == {"whole": 1}


async def test_another_deployment_or_format_is_not_read(
    make: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    await make().save(CHAIN, "here", changes({"a": 1}))
    assert await make().load(CHAIN, "there") is None
    assert await make().load(ChainId(5), "here") is None
    monkeypatch.setattr("rtserver.store.store.FORMAT", 99)
    assert await make().load(CHAIN, "here") is None


async def test_streams_are_handed_out_once_and_not_late(make: Callable[..., Store]) -> None:
    now = 1_000_000
    late = {"wall_ms": lambda: now + 121_000}
    early = {"wall_ms": lambda: now - 1}
    soon = {"wall_ms": lambda: now + 119_000}
    for at, count in ((late, 0), (early, 0), (soon, 1)):
        await make(wall_ms=lambda: now).save(CHAIN, "here", changes({"a": 1}, streams={"head:1": STREAM}))
        first, second = await make(**at).load(CHAIN, "here"), await make(**at).load(CHAIN, "here")
        assert first is not None and second is not None
        assert list(first.streams.values()) == [STREAM] * count
        assert not second.streams


async def test_any_later_checkpoint_ends_the_streams(make: Callable[..., Store]) -> None:
    store = make()
    await store.save(CHAIN, "here", changes({"a": 1}, streams={"head:1": STREAM}))
    await store.save(CHAIN, "here", changes({"a": 2}, whole=False))
    found = await make().load(CHAIN, "here")
    assert found is not None and not found.streams


async def test_one_process_writes_a_chain(make: Callable[..., Store]) -> None:
    first, second = make(), make()
    await first.save(CHAIN, "here", changes({"a": 1}))
    await second.load(CHAIN, "here")
    for whole in (False, True):
        with pytest.raises(TakenOver):
            await first.save(CHAIN, "here", changes({"a": 2}, whole=whole))
    await second.save(CHAIN, "here", changes({"b": 3}, whole=False))
    found = await make().load(CHAIN, "here")
    assert found is not None and found.facts["book"] == {"a": 1, "b": 3}


async def test_of_those_who_take_turns_the_turn_decides_and_not_who_comes_last(make: Callable[..., Store]) -> None:
    old, new = make(), make()
    await old.save(CHAIN, "here", changes({"a": 1}, charge="9-old"))
    # A standby reads, and that is all.
    found = await new.load(CHAIN, "here", takes_over=False)
    assert found is not None and found.facts["book"] == {"a": 1}
    await old.save(CHAIN, "here", changes({"b": 1}, whole=False, charge="9-old"))
    with pytest.raises(StoreError):
        await new.save(CHAIN, "here", changes({"b": 2}, whole=False, charge="10-new"))
    await new.save(CHAIN, "here", changes({"b": 2}, charge="10-new"))
    for whole in (False, True):
        with pytest.raises(TakenOver):
            await old.save(CHAIN, "here", changes({"a": 3}, whole=whole, charge="9-old"))
    await new.save(CHAIN, "here", changes({"c": 2}, whole=False, charge="10-new"))
    await old.save(CHAIN, "here", changes({"d": 3}, charge="11-old"))
    found = await make().load(CHAIN, "here", takes_over=False)
    assert found is not None and found.facts["book"] == {"d": 3}


async def test_nobody_takes_a_file_over_between_the_look_and_the_write(
    make_file: Callable[..., Store], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_file()
    await store.save(CHAIN, "here", changes({"a": 1}))
    prove, refusals = store._prove_mine, []

    def interrupted(*args: Any) -> None:
        with closing(sqlite3.connect(path, timeout=0)) as other:
            try:
                other.execute("UPDATE rtserver_chain SET writer = 'other'")
            except sqlite3.OperationalError as error:
                refusals.append(str(error))
        prove(*args)

    monkeypatch.setattr(store, "_prove_mine", interrupted)
    await store.save(CHAIN, "here", changes({"a": 2}, whole=False))
    assert refusals == ["database is locked"]


@pytest.mark.parametrize("takes_over", [False, True])
async def test_what_is_read_is_of_one_checkpoint(
    make: Callable[..., Store], place: Place, monkeypatch: pytest.MonkeyPatch, takes_over: bool
) -> None:
    """Not the blocks of one and the facts of the next, which is being written."""
    if place.kind == "sqlite":
        pytest.skip("a file has one writer at a time")
    writer = make()
    await writer.save(CHAIN, "here", changes({"a": 1}, charge="9-writer"))
    inside, go_on = asyncio.Event(), asyncio.Event()
    write_facts = writer._write_facts

    async def slowly(*args: Any) -> None:
        inside.set()
        await go_on.wait()
        await write_facts(*args)

    monkeypatch.setattr(writer, "_write_facts", slowly)
    newer = replace(changes({"a": 2}, whole=False, charge="9-writer"), window=WINDOW[1:])
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(writer.save(CHAIN, "here", newer))
        await inside.wait()
        loading = group.create_task(make().load(CHAIN, "here", takes_over=takes_over))
        await until_someone_waits(place)
        assert not loading.done()
        go_on.set()
    found = loading.result()
    assert found is not None
    assert (found.window, found.facts["book"]) == (newer.window, {"a": 2})


async def test_turns_beside_one_who_takes_none(make: Callable[..., Store]) -> None:
    """A single process takes the chain over; an engine's next checkpoint is whole, and then it is the engine's."""
    engine, alone = make(), make()
    await engine.save(CHAIN, "here", changes({"a": 1}, charge="9-engine"))
    await alone.load(CHAIN, "here")
    await alone.save(CHAIN, "here", changes({"b": 1}, whole=False))
    with pytest.raises(StoreError):
        await engine.save(CHAIN, "here", changes({"c": 1}, whole=False, charge="9-engine"))
    await engine.save(CHAIN, "here", changes({"c": 1}, charge="9-engine"))
    with pytest.raises(TakenOver):
        await alone.save(CHAIN, "here", changes({"d": 1}))
    found = await make().load(CHAIN, "here")
    assert found is not None and found.facts["book"] == {"c": 1}


async def test_who_takes_turns_leaves_the_streams_alone(make: Callable[..., Store]) -> None:
    await make().save(CHAIN, "here", changes({"a": 1}, streams={"head:1": STREAM}))
    standby, alone = await make().load(CHAIN, "here", takes_over=False), await make().load(CHAIN, "here")
    assert standby is not None and alone is not None
    assert (len(standby.streams), len(alone.streams)) == (0, 1)


async def test_each_part_of_a_chain_has_checkpoints_of_its_own(make: Callable[..., Store]) -> None:
    labels = ("", "0/2", "1/2", "any/2")
    stores = [make(label=label) for label in labels]
    for round_ in range(2):
        for index, store in enumerate(stores):
            await store.save(CHAIN, "here", changes({"a": index + round_}, whole=not round_))
    for index, label in enumerate(labels):
        found = await make(label=label).load(CHAIN, "here")
        assert found is not None and found.facts["book"] == {"a": index + 1}


@pytest.mark.parametrize("damage", ["garbage", "truncated", "header", "middle"])
async def test_a_broken_file_is_moved_aside(make_file: Callable[..., Store], path: Path, damage: str) -> None:
    store = make_file()
    await store.save(CHAIN, "here", changes({f"n:{index}": "x" * 100 for index in range(2000)}))
    await store.close()
    content = read(path)
    broken = {
        "garbage": b"not a database at all" * 500,
        "truncated": content[: len(content) // 3],
        "header": b"\0" * 100 + content[100:],
        "middle": content[:8192] + b"\xff" * 50_000 + content[58_192:],
    }[damage]
    write(path, broken)
    reopened = make_file()
    assert await reopened.load(CHAIN, "here") is None
    assert read(path.with_name("store.sqlite3.broken")) == broken
    await reopened.save(CHAIN, "here", changes({"a": 1}))
    assert await make_file().load(CHAIN, "here") is not None


@pytest.mark.parametrize(
    "damage",
    ["value = '{'", "value = substr(value, 1, 8) || '2'", "value = ''", "name = 'b'", "part = 'c'"],
)
async def test_damaged_facts(make_file: Callable[..., Store], path: Path, damage: str) -> None:
    """Also one digit of one fact: wrong facts would be wrong numbers."""
    await make_file().save(CHAIN, "here", changes({"a": 1}))
    with sqlite3.connect(path) as raw:
        raw.execute(f"UPDATE rtserver_fact SET {damage} WHERE name = 'a'")
    raw.close()
    with pytest.raises(StoreError, match="not readable"):
        await make_file().load(CHAIN, "here")
    # The next whole checkpoint replaces it.
    store = make_file()
    await store.save(CHAIN, "here", changes({"a": 1}))
    assert await make_file().load(CHAIN, "here") is not None


async def test_an_empty_file_is_a_new_store(make_file: Callable[..., Store], path: Path) -> None:
    write(path, b"")
    assert await make_file().load(CHAIN, "here") is None


async def test_a_newer_version_s_file_is_left_alone(make_file: Callable[..., Store], path: Path) -> None:
    await make_file().save(CHAIN, "here", changes({"a": 1}))
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE rtserver_schema SET version_num = '9999'")
    raw.close()
    with pytest.raises(Foreign, match="newer version"):
        await make_file().load(CHAIN, "here")
    assert await open_store(None, path, {}) is None
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM rtserver_fact").fetchone() == (2,)
    raw.close()


async def test_an_older_version_s_file_is_brought_up(make_file: Callable[..., Store], path: Path) -> None:
    """The version before the first: a schema table that says nothing yet."""
    path.parent.mkdir()
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE rtserver_schema (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    raw.close()
    store = make_file()
    await store.save(CHAIN, "here", changes({"a": 1}))
    assert await make_file().load(CHAIN, "here") is not None


async def test_another_program_s_file_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE bookmarks (url TEXT)")
    raw.close()
    before = read(path)
    assert await open_store(None, path, {}) is None
    assert read(path) == before


async def test_a_locked_file_is_tried_again(
    make_file: Callable[..., Store], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_BUSY_S", 0.05)
    await make_file().save(CHAIN, "here", changes({"a": 1}))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    store = make_file()
    with pytest.raises(StoreError, match="locked"):
        await store.load(CHAIN, "here")
    with pytest.raises(StoreError, match="locked"):
        await store.save(CHAIN, "here", changes({"a": 2}))
    holder.execute("ROLLBACK")
    holder.close()
    await store.save(CHAIN, "here", changes({"a": 2}))
    found = await make_file().load(CHAIN, "here")
    assert found is not None and found.facts["book"] == {"a": 2}


async def test_a_file_that_vanishes_is_begun_anew(make_file: Callable[..., Store], path: Path) -> None:
    store = make_file()
    await store.save(CHAIN, "here", changes({"a": 1, "b": 1}))
    unlink_all(path.parent)
    with pytest.raises(StoreError):
        await store.save(CHAIN, "here", changes({"b": 2}, whole=False))
    await store.save(CHAIN, "here", changes({"a": 1, "b": 2}))
    found = await make_file().load(CHAIN, "here")
    assert found is not None and found.facts["book"] == {"a": 1, "b": 2}


async def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file / "store.sqlite3", tmp_path):
        with pytest.raises(ConfigError, match=r"store\.path = .*cannot be written"):
            await open_store(None, place, {})
    # Nobody asked for the default: without it there is a log line, and no store.
    assert await open_store(None, None, {"HOME": str(file)}) is None
    assert await open_store(None, None, {}) is None


@pytest.mark.parametrize("url", ["nonsense", "nodriver://u:SECRET@host/db", "postgresql+nothing://u:SECRET@host/db"])
async def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"store\.url") as raised:
        await open_store(url, None, {})
    assert "SECRET" not in str(raised.value)


def test_where_it_is_by_default() -> None:
    assert default_path({"HOME": "/h"}) == Path("/h/.local/state/rtserver/store.sqlite3")
    assert default_path({"HOME": "/h", "XDG_STATE_HOME": "/x"}) == Path("/x/rtserver/store.sqlite3")
    assert default_path({"HOME": "/h", "XDG_STATE_HOME": "relative"}) == Path("/h/.local/state/rtserver/store.sqlite3")
    assert default_path({}) is None


async def test_migrations_lead_to_the_tables(make: Callable[..., Store], place: Place) -> None:
    await make().load(CHAIN, "here")
    folder = Path(database_module.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_heads() == [SCHEMA]
    opened = Database(place.url)
    async with opened.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"version_table": "rtserver_schema"}), METADATA
            )
        )
    await opened.close()
    assert differences == []


@pytest.mark.parametrize("is_interrupted", [False, True])
async def test_a_database_of_the_first_version_keeps_what_it_holds(
    make: Callable[..., Store], place: Place, is_interrupted: bool
) -> None:
    """Also where an earlier try to bring it up to date ended in the middle: SQLite commits each table at once."""
    await make().save(CHAIN, "here", changes({"a": 1}))
    database = Database(place.url)
    gone = ["rtserver_hour", "rtserver_day"] if is_interrupted else [
        "rtserver_source", "rtserver_minute", "rtserver_hour", "rtserver_day",
    ]  # fmt: skip
    async with database.transaction() as connection:
        for table in gone:
            await connection.execute(text(f"DROP TABLE {table}"))
        await connection.execute(text("UPDATE rtserver_schema SET version_num = '0001'"))
    await database.close()
    found = await make().load(CHAIN, "here")
    assert found is not None and found.facts["book"] == {"a": 1}
    await test_migrations_lead_to_the_tables(make, place)
