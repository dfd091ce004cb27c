"""All rows, in the table's order, and what each is played on."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import rows_cluster, rows_processes, rows_redis
from .row import Row
from .stage import OpenStage
from .stage_cluster import cluster
from .stage_one import one_redis

__all__ = ["PLAYS", "ROWS", "Play"]


class Play(NamedTuple):
    """A row, and what opens its stage."""

    row: Row[Any]
    opens: OpenStage[Any]


PLAYS = (
    *(Play(row, one_redis) for row in (*rows_redis.ROWS, *rows_processes.ROWS)),
    *(Play(row, cluster) for row in rows_cluster.ROWS),
)
ROWS = tuple(play.row for play in PLAYS)
