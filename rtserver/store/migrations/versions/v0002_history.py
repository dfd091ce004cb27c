"""The history of positions: records, one table for each resolution that they are rolled up to."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBERS = ("liquidity", "inside0", "inside1", "amount0", "amount1")
_RECORDS = {"rtserver_minute": False, "rtserver_hour": True, "rtserver_day": True}


def upgrade() -> None:
    """Create the four tables. SQLite commits each at once: what an interrupted try left is gone on from."""
    op.create_table(
        "rtserver_source",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("chain_id", sa.String(78), nullable=False),
        sa.Column("protocol", sa.String(64), nullable=False),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("writer", sa.String(32), nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "rtserver_source_name",
        "rtserver_source",
        ["chain_id", "protocol", "identity"],
        unique=True,
        if_not_exists=True,
    )
    for name, is_rolled_up in _RECORDS.items():
        op.create_table(
            name,
            sa.Column("source", sa.Integer, nullable=False),
            sa.Column("token_id", sa.String(78), nullable=False),
            *([sa.Column("bucket", sa.BigInteger, nullable=False)] if is_rolled_up else []),
            sa.Column("at", sa.BigInteger, nullable=False),
            sa.Column("block", sa.BigInteger, nullable=False),
            sa.Column("hash", sa.String(66), nullable=False),
            *(sa.Column(number, sa.Text, nullable=False) for number in _NUMBERS),
            *(sa.Column(number, sa.Text) for number in ("fees0", "fees1", "earned0", "earned1")),
            sa.Column("sqrt_price", sa.Text, nullable=False),
            sa.Column("tick", sa.Integer, nullable=False),
            sa.Column("is_active", sa.Boolean, nullable=False),
            *(sa.Column(text, sa.Text) for text in ("value_cents", "fees_cents", "rewards", "price")),
            sa.Column("active_s", sa.BigInteger, nullable=False),
            sa.Column("covered_s", sa.BigInteger, nullable=False),
            if_not_exists=True,
        )
        place = ["source", "token_id", "bucket"] if is_rolled_up else ["source", "token_id", "at", "block"]
        op.create_index(f"{name}_place", name, place, unique=True, if_not_exists=True)
        op.create_index(f"{name}_at", name, ["source", "at"], if_not_exists=True)


def downgrade() -> None:
    """Drop them."""
    for table in (*_RECORDS, "rtserver_source"):
        op.drop_table(table)
