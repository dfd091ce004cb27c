"""The tables. One row a fact, so that a checkpoint writes what changed; what a fact says is its part's business.

Numbers that a chain chooses (ids) are text: they may be larger than any integer column.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text

__all__ = ["METADATA", "chains", "facts", "streams"]

METADATA: Final = MetaData()

# `writer` is the process that may write: a later one takes the chain over, and the earlier one notices.
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
