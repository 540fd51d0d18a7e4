"""Validation of uploaded files' names, which are labels and never paths on this server."""

import mimetypes
import re
import unicodedata

from commonweight.messages.errors import InvalidRequestError

MAX_NAME_CHARACTERS = 255
_FORBIDDEN = frozenset('<>:"|?*\\/')

# Not the module's functions: those look into files of this machine, and would answer otherwise elsewhere.
_types = mimetypes.MimeTypes()


def clean_name(given: str) -> str:
    """Base name of the client's path for a file; empty if it gives none.

    Raises:
        InvalidRequestError: it is too long, has forbidden characters, or is ``.`` or ``..``.
    """
    name = re.split(r"[/\\]", given)[-1]
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidRequestError(f"file: the filename is longer than {MAX_NAME_CHARACTERS} characters")
    if any(c in _FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise InvalidRequestError(
            'file: the filename has characters that it may not have: < > : " | ? * or control characters'
        )
    if name in (".", ".."):
        raise InvalidRequestError(f"file: the filename is {name}, which means a folder")
    return name


def make_name(mime_type: str) -> str:
    """Default name of a file, with the extension of its media type."""
    return "unnamed" + (_types.guess_extension(mime_type) or "")
