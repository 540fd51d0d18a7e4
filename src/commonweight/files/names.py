"""What an uploaded file may be called. A name is for people and programs, and never a path of this server's."""

import mimetypes
import re
import unicodedata

from commonweight.messages.errors import InvalidRequestError

LONGEST_NAME = 255
_FORBIDDEN = frozenset('<>:"|?*\\/')

# Not the module's functions: those look into files of this machine, and would answer otherwise elsewhere.
_types = mimetypes.MimeTypes()


def checked_name(given: str) -> str:
    """The last part of what a client calls its file; empty if there is none.

    Raises:
        InvalidRequestError: it is too long, has characters that no file's name may have, or means a folder.
    """
    name = re.split(r"[/\\]", given)[-1]
    if len(name) > LONGEST_NAME:
        raise InvalidRequestError(f"file: the filename is longer than {LONGEST_NAME} characters")
    if any(c in _FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise InvalidRequestError(
            'file: the filename has characters that it may not have: < > : " | ? * or control characters'
        )
    if name in (".", ".."):
        raise InvalidRequestError(f"file: the filename is {name}, which means a folder")
    return name


def name_for(mime_type: str) -> str:
    """What a file without a name is called."""
    return "unnamed" + (_types.guess_extension(mime_type) or "")
