"""Checkpoints of chains: where they were, what was known of them, and the streams of an orderly end."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "rtserver_chain",
        sa.Column("chain_id", sa.String(78), primary_key=True),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("writer", sa.String(32), nullable=False),
        sa.Column("blocks", sa.Text, nullable=False),
        sa.Column("saved_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "rtserver_fact",
        sa.Column("chain_id", sa.String(78), primary_key=True),
        sa.Column("part", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "rtserver_stream",
        sa.Column("chain_id", sa.String(78), primary_key=True),
        sa.Column("channel", sa.String(200), primary_key=True),
        sa.Column("epoch", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("tag", sa.String(32), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("rtserver_stream", "rtserver_fact", "rtserver_chain"):
        op.drop_table(table)
