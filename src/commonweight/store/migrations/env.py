"""Alembic's entry: upgrades the connection that ``store.database`` hands in, within its transaction."""

from alembic import context

from commonweight.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
