"""All rows, in the table's order."""

from __future__ import annotations

from . import rows_processes, rows_redis

__all__ = ["ROWS"]

ROWS = (*rows_redis.ROWS, *rows_processes.ROWS)
