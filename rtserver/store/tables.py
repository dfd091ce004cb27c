"""The tables. One row a fact, so that a checkpoint writes what changed; what a fact says is its part's business.

Numbers that a chain chooses (ids, amounts) are text: they may be larger than any integer column.
"""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text

__all__ = ["METADATA", "chains", "day_records", "facts", "hour_records", "minute_records", "sources", "streams"]

METADATA: Final = MetaData()

# `writer` is the process that may write: a later one takes the chain over, and the earlier one notices. Of those that
# take turns it is the token of the newest turn that was written in.
chains: Final = Table(
    "rtserver_chain",
    METADATA,
    Column("chain_id", String(78), primary_key=True),
    Column("identity", Text, nullable=False),
    Column("format", Integer, nullable=False),
    Column("writer", String(32), nullable=False),
    Column("blocks", Text, nullable=False),
    Column("saved_ms", BigInteger, nullable=False),
)

facts: Final = Table(
    "rtserver_fact",
    METADATA,
    Column("chain_id", String(78), primary_key=True),
    Column("part", String(64), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("value", Text, nullable=False),
)

# Only between an orderly end and the next start.
streams: Final = Table(
    "rtserver_stream",
    METADATA,
    Column("chain_id", String(78), primary_key=True),
    Column("channel", String(200), primary_key=True),
    Column("epoch", String(64), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("tag", String(32), nullable=False),
    Column("state", Text, nullable=False),
)

# --- history -----------------------------------------------------------------------------------------------

# Whose positions a record is of: one deployment of a protocol on a chain. `writer` as in `chains`.
sources: Final = Table(
    "rtserver_source",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("chain_id", String(78), nullable=False),
    Column("protocol", String(64), nullable=False),
    Column("identity", Text, nullable=False),
    Column("writer", String(32), nullable=False),
    Index("rtserver_source_name", "chain_id", "protocol", "identity", unique=True),
)


def _records(name: str, *, is_rolled_up: bool) -> Table:
    """Return a table of records; see store.records. A rolled-up one has one row a position and bucket of time.

    `hash` is of the block, to find those that left the chain; `at` is its timestamp.
    """
    place = ("source", "token_id", "bucket") if is_rolled_up else ("source", "token_id", "at", "block")
    return Table(
        name,
        METADATA,
        Column("source", Integer, nullable=False),
        Column("token_id", String(78), nullable=False),
        *([Column("bucket", BigInteger, nullable=False)] if is_rolled_up else []),
        Column("at", BigInteger, nullable=False),
        Column("block", BigInteger, nullable=False),
        Column("hash", String(66), nullable=False),
        Column("liquidity", Text, nullable=False),
        Column("inside0", Text, nullable=False),
        Column("inside1", Text, nullable=False),
        Column("amount0", Text, nullable=False),
        Column("amount1", Text, nullable=False),
        Column("fees0", Text),
        Column("fees1", Text),
        Column("earned0", Text),
        Column("earned1", Text),
        Column("sqrt_price", Text, nullable=False),
        Column("tick", Integer, nullable=False),
        Column("is_active", Boolean, nullable=False),
        Column("value_cents", Text),
        Column("fees_cents", Text),
        Column("rewards", Text),
        Column("price", Text),
        Column("active_s", BigInteger, nullable=False),
        Column("covered_s", BigInteger, nullable=False),
        Index(f"{name}_place", *place, unique=True),
        Index(f"{name}_at", "source", "at"),
    )


minute_records: Final = _records("rtserver_minute", is_rolled_up=False)
hour_records: Final = _records("rtserver_hour", is_rolled_up=True)
day_records: Final = _records("rtserver_day", is_rolled_up=True)
