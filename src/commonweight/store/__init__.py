"""Database access: connection, migrations, tables and queries. No policy."""

from commonweight.store.database import Database, DatabaseError, Revisions, make_sqlite_url, read_revisions

__all__ = ["Database", "DatabaseError", "Revisions", "make_sqlite_url", "read_revisions"]
