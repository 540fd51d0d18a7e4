"""What asking the database may raise when it is gone, full or busy: none of it is the client's fault."""

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

FAILURES = (SQLAlchemyError, OSError)


def reason(error: Exception) -> str:
    """The first line of what the database says: fit for logs, without what was to be written."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return str(cause).strip().partition("\n")[0] or type(cause).__name__
