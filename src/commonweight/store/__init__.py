"""The database: tables, and how to ask them. Rules live in the rooms above."""

from commonweight.store.database import Database, DatabaseError, Revisions, revisions, sqlite_url

__all__ = ["Database", "DatabaseError", "Revisions", "revisions", "sqlite_url"]
