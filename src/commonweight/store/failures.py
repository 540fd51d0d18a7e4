"""Exceptions of an unreachable, full or busy database, which no request causes."""

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

FAILURES = (SQLAlchemyError, OSError)


def get_reason(error: Exception) -> str:
    """First line of the database's message, for logs; without the values of the statement."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return str(cause).strip().partition("\n")[0] or type(cause).__name__
