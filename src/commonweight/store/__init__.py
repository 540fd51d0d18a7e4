"""Database access: connection, migrations, tables and queries. No policy."""

from commonweight.store.database import Database, Revisions, make_sqlite_url, read_revisions
from commonweight.store.urls import DatabaseError

__all__ = ["Database", "DatabaseError", "Revisions", "make_sqlite_url", "read_revisions"]
