"""Media type detection: checks declared types against magic numbers and UTF-8."""

import codecs
import re

from commonweight.messages.errors import InvalidRequestError

UNKNOWN = "application/octet-stream"
"""Media type that clients declare for lack of a better one."""

_HEAD_BYTES = 1024
_MAGIC = {
    "application/pdf": rb"%PDF-",
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/jpeg": rb"\xff\xd8\xff",
    "image/gif": rb"GIF8[79]a",
    "image/webp": rb"RIFF.{4}WEBP",
}
_ALIASES = {"image/jpg": "image/jpeg", "application/x-pdf": "application/pdf"}
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,80}/[a-z0-9!#$&^_.+-]{1,80}", re.ASCII)


class Sniffer:
    """Incremental detector for one file."""

    def __init__(self) -> None:
        self._head = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._is_text = True

    def feed(self, data: bytes) -> None:
        """Inspect the next bytes of the file."""
        self._head += data[: _HEAD_BYTES - len(self._head)]
        if self._is_text:
            self._read(data)

    def detect_mime_type(self, declared: str) -> str:
        """Media type of the whole file.

        PDFs and pictures are known by how they begin, and text is what is UTF-8 without NUL. Where a client
        declares one of these, or the content is a PDF or picture, both must agree. Other kinds are taken at the
        client's word.

        Raises:
            InvalidRequestError: it is not what it is declared to be.
        """
        declared = declared.partition(";")[0].strip().lower()
        declared = _ALIASES.get(declared, declared)
        if not _TYPE.fullmatch(declared):
            declared = UNKNOWN
        self._read(b"", is_last=True)
        found = next((kind for kind, magic in _MAGIC.items() if re.match(magic, self._head, re.DOTALL)), None)
        if declared == "application/pdf" and b"%PDF-" in self._head:
            found = declared  # readers allow for something before it
        if declared == UNKNOWN:
            return found or ("text/plain" if self._is_text else UNKNOWN)
        if found is not None and found != declared:
            raise InvalidRequestError(f"file: it is declared as {declared}, but its content is {found}")
        if found is None and declared in _MAGIC:
            raise InvalidRequestError(f"file: it is declared as {declared}, but its content is not")
        if declared.startswith("text/") and not self._is_text:
            raise InvalidRequestError(f"file: it is declared as {declared}, but its content is not UTF-8 text")
        return declared

    def _read(self, data: bytes, *, is_last: bool = False) -> None:
        try:
            self._decoder.decode(data, is_last)
        except UnicodeDecodeError:
            self._is_text = False
        self._is_text = self._is_text and b"\0" not in data
