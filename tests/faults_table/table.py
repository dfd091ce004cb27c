"""All rows, in the table's order."""

from __future__ import annotations

from . import rows_chain, rows_clients, rows_endpoints, rows_heads, rows_restarts

__all__ = ["ROWS"]

ROWS = (*rows_heads.ROWS, *rows_endpoints.ROWS, *rows_chain.ROWS, *rows_restarts.ROWS, *rows_clients.ROWS)
