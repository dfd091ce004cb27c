"""How alembic runs here: always on the connection that the store hands over."""

from alembic import context

from rtserver.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table="rtserver_schema",
    # SQLite can't alter a table in place.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
