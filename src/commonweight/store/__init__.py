"""Database access: connection, migrations, tables and queries. No policy."""

from commonweight.store.database import Database, DatabaseError, Revisions, revisions, sqlite_url

__all__ = ["Database", "DatabaseError", "Revisions", "revisions", "sqlite_url"]
