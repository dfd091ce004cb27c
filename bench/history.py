"""How many records a second each database takes, rolls up and gives back: `python -m bench.history`.

SQLite in a file of its own, synchronous=FULL, and PostgreSQL where `--postgres URL` names an empty database. Positions
are recorded once a minute; rows are as wide as real ones. Prints one table; CPU is this process's own.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rtserver.domain.chain import BlockRef
from rtserver.domain.ids import Address, BlockHash, ChainId, TokenId
from rtserver.protocols.earning import Sample
from rtserver.store.database import Database, sqlite_url
from rtserver.store.history import HistoryStore
from rtserver.store.records import Record, Retention

CHAIN = ChainId(1)
KIND = "uniswap-v3"
PLACE = (CHAIN, KIND, "here")
BATCH = 2000
_TOKEN = Address("0x" + "ab" * 20)


def record(token_id: int, minute: int) -> Record:
    """Return a record as wide as one of a busy position."""
    amount = 10**18 + token_id * 10**9 + minute
    sample = Sample(
        token_id=TokenId(900_000 + token_id), liquidity=3522392837502445 + minute, inside0=2**250 + amount,
        inside1=2**251 + amount, amount0=amount, amount1=10762188175 + minute, fees0=954162666788150 + minute,
        fees1=1809610, earned0=amount, earned1=amount, sqrt_price_x96=4321994578943387217523456 + minute, tick=-196338,
        is_active=True, value_cents=4231082 + minute, fees_cents=465, rewards={_TOKEN: amount},
    )  # fmt: skip
    block = BlockRef(number=5 * minute, hash=BlockHash(f"0x{minute:064x}"))
    return Record(KIND, block, 60 * minute, sample, "2975.851835257599472", 55, 60)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[HistoryStore]:
    """Open a history that is ours."""
    database = Database(url)
    history = HistoryStore(database)
    await history.claim(CHAIN, {KIND: "here"})
    try:
        yield history
    finally:
        await database.close()


async def measure(name: str, url: str, positions: int, minutes: int) -> None:
    """Fill, read and roll up; print a row of the table."""
    async with opened(url) as history:
        rows = [record(token_id, minute) for minute in range(1, minutes + 1) for token_id in range(positions)]
        started, cpu = time.perf_counter(), time.process_time()
        for first in range(0, len(rows), BATCH):
            await history.write(CHAIN, None, rows[first : first + BATCH])
        wrote, wrote_cpu = time.perf_counter() - started, time.process_time() - cpu
        started = time.perf_counter()
        reads = 50
        for index in range(reads):
            token_id = TokenId(900_000 + index * positions // reads)
            found = await history.window(PLACE, token_id, start=0, end=60 * minutes, step=60, below=2**62)
            assert len(found) == minutes
        read = (time.perf_counter() - started) / reads
        started, moved = time.perf_counter(), 0
        while count := await history.roll_up(CHAIN, Retention(minutes_until=2**60, hours_until=0, days_until=0)):
            moved += count
        rolled = time.perf_counter() - started
    print(
        f"| {name} | {len(rows) / wrote:,.0f} | {wrote_cpu / len(rows) * 1e6:.0f} | {read * 1e3:.1f} "
        f"| {moved / rolled:,.0f} |"
    )


async def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", help="URL of an empty database")
    parser.add_argument("--positions", type=int, default=1000)
    parser.add_argument("--minutes", type=int, default=60)
    options = parser.parse_args()
    print(f"{options.positions:,} positions, {options.minutes} records each")
    print("| database | records a second | µs CPU a record | ms to read a window | records rolled up a second |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        await measure("SQLite", sqlite_url(Path(folder, "history.sqlite3")), options.positions, options.minutes)
    if options.postgres:
        await measure("PostgreSQL", options.postgres, options.positions, options.minutes)


if __name__ == "__main__":
    asyncio.run(main())
