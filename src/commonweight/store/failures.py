"""Exceptions of an unreachable, full or busy database, which no request causes."""

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

FAILURES = (SQLAlchemyError, OSError)

_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNWRITABLE_ERRNOS = (errno.EROFS, errno.EIO)
_UNREACHABLE_ERRNOS = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM)
"""The same if a file is named; PostgreSQL's socket may be missing, too, and has no name here."""
_UNWRITABLE_CODES = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
_DISK_FULL_STATE = "53100"  # of PostgreSQL


def get_reason(error: Exception) -> str:
    """First line of the database's message, for logs; without the values of the statement."""
    cause = _get_cause(error)
    return str(cause).strip().partition("\n")[0] or type(cause).__name__


def find_disk_fault(error: Exception) -> str | None:
    """What is wrong with the disk of files or database, for clients: without a path. None: something else is."""
    cause = _get_cause(error)
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # without the details of extended codes
    number, name = (cause.errno, cause.filename) if isinstance(cause, OSError) else (None, None)
    if number in _FULL_ERRNOS or code == sqlite3.SQLITE_FULL or getattr(cause, "sqlstate", "") == _DISK_FULL_STATE:
        return "The server's disk is full"
    is_unwritable = number in _UNWRITABLE_ERRNOS or (number in _UNREACHABLE_ERRNOS and name is not None)
    if is_unwritable or code in _UNWRITABLE_CODES:
        return "The server's disk cannot be written to"
    return None


def _get_cause(error: Exception) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig else error
