"""The queries that read records: windows of a position, and what many positions were at some moments.

Each is of one level. Decides nothing about which levels are asked, or what the rows mean.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, RowMapping, Select, and_, case, func, literal, select
from sqlalchemy.sql.schema import Table

__all__ = ["SHOWN", "first_of_steps", "in_range", "last_before", "last_of_parts", "nearest_priced", "whole_numbers"]

# What a point of a window shows.
SHOWN: Final = ("amount0", "amount1", "fees0", "fees1", "value_cents", "fees_cents", "price")
# A value of cents tells prices to a ten-thousandth from $100 on.
_WORTH_DIGITS: Final = 5


def in_range(
    table: Table, length: int, source: int, token: str, first: int, last: int
) -> Iterable[ColumnElement[bool]]:
    """Return the conditions for records of a position in [first, last], so that an index finds them."""
    yield table.c.source == source
    yield table.c.token_id == token
    yield table.c.at.between(first, last)
    if length > 1:
        yield table.c.bucket.between(first // length, last // length)


def last_of_parts(
    table: Table, length: int, source: int, token: str, start: int, end: int, step: int, below: int
) -> Select[Any]:
    """Return the query for the last record of each part of a window at one level."""
    here = (*in_range(table, length, source, token, start + 1, end), table.c.block < below)
    # A record may cover time before the window. Such a long one is all in range, or not at all, see history.clocks.
    since_start = table.c.at - start
    is_cut = table.c.covered_s > since_start
    slot: ColumnElement[int] = (table.c.at - literal(start + 1, literal_execute=True)) // literal(
        step, literal_execute=True
    )
    # One pass, without a join: a plan for that one is right only where the database knows how much there is.
    seconds = case((is_cut, table.c.active_s * since_start // table.c.covered_s), else_=table.c.active_s)
    in_part = (
        select(
            slot.label("slot"),
            func.sum(seconds).over(partition_by=slot).label("active_s"),
            func.sum(case((is_cut, since_start), else_=table.c.covered_s)).over(partition_by=slot).label("covered_s"),
            func.min(table.c.at - table.c.covered_s).over(partition_by=slot).label("begins"),
            func.row_number()
            .over(partition_by=slot, order_by=(table.c.at.desc(), table.c.block.desc()))
            .label("place"),
            table.c.at,
            table.c.block,
            *(table.c[name] for name in SHOWN),
        )
        .where(*here)
        .subquery()
    )
    return select(*(column for column in in_part.c if column.name != "place")).where(in_part.c.place == 1)


def first_of_steps(
    table: Table, length: int, source: int, tokens: Sequence[str], part: tuple[int, int, int], below: int
) -> Select[Any]:
    """Return the query for the first record of positions in each step of a part of time at one level."""
    after, until, step = part
    here = [
        table.c.source == source,
        table.c.token_id.in_(tokens),
        table.c.at.between(after + 1, until),
        table.c.block < below,
    ]
    if length > 1:
        here.append(table.c.bucket.between((after + 1) // length, until // length))
    slot: ColumnElement[int] = (table.c.at - literal(after + 1, literal_execute=True)) // literal(
        step, literal_execute=True
    )
    grouped = (
        select(table.c.token_id, func.min(table.c.at).label("at"), func.min(table.c.block).label("block"))
        .where(*here)
        .group_by(table.c.token_id, slot)
        .subquery()
    )
    columns = (table.c.token_id, table.c.at, table.c.block, table.c.earned0, table.c.earned1, table.c.value_cents)
    is_first = (table.c.token_id == grouped.c.token_id, table.c.at == grouped.c.at, table.c.block == grouped.c.block)
    return select(*columns).join(grouped, and_(*is_first)).where(*here)


def last_before(table: Table, length: int, source: int, token: str, start: int, below: int) -> Select[Any]:
    """Return the query for the newest record at one level that is not after the start of a window."""
    columns = (table.c.at, table.c.block, *(table.c[name] for name in SHOWN))
    # Time has no beginning for an index: any record is after 0.
    return (
        select(*columns)
        .where(*in_range(table, length, source, token, 0, start), table.c.block < below)
        .order_by(table.c.at.desc(), table.c.block.desc())
        .limit(1)
    )


def whole_numbers(row: RowMapping) -> dict[str, Any]:
    """Return a row with whole numbers: sums of PostgreSQL are decimals."""
    return {**row, "slot": int(row["slot"]), "active_s": int(row["active_s"]), "covered_s": int(row["covered_s"])}


def nearest_priced(
    table: Table, length: int, source: int, tokens: Sequence[str], at: int, within: int, below: int
) -> Select[Any]:
    """Return the query for the record at one level that has a value of at least $100 and is nearest to a time.

    Args:
        table: The level's.
        length: A bucket's seconds there.
        source: Whose.
        tokens: The positions that will do, at most some ten.
        at: The time in seconds.
        within: How far away it may be.
        below: Only records of blocks under this.
    """
    here = [
        table.c.source == source,
        table.c.token_id.in_(tokens),
        table.c.at.between(at - within, at + within),
        table.c.block < below,
        # As text: at least five digits of cents.
        func.length(table.c.value_cents) >= _WORTH_DIGITS,
    ]
    if length > 1:
        here.append(table.c.bucket.between((at - within) // length, (at + within) // length))
    columns = (table.c.at, table.c.value_cents, table.c.amount0, table.c.amount1, table.c.sqrt_price)
    return select(*columns).where(*here).order_by(func.abs(table.c.at - at), table.c.token_id).limit(1)
