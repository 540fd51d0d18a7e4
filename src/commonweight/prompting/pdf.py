"""Text extraction from PDF files, page by page."""

from threading import Lock

import pypdfium2  # type: ignore[import-untyped]

from commonweight.messages.errors import InvalidRequestError

MAX_PAGES = 600
"""Limit of all files in one request."""
MAX_BYTES = 32 * 2**20
"""Limit of one file."""
MAX_CHARACTERS = 5_000_000
"""Limit of one file."""

# PDFium has global state: no two of its functions may run at once.
_lock = Lock()

# PDFium's character for a hyphen at the end of a line; it leaves out the line break after it.
_LINE_END_HYPHEN = "\x02"


def extract_pages(data: bytes, path: str, pages_before: int = 0) -> list[str]:
    """The text of each page, empty for a scanned page. Milliseconds a page, in the caller's thread.

    ``path`` is the file's path in the request, and ``pages_before`` counts the pages of other files in it. Error
    messages have the API's words, by which agents recognize that they should go on without the file.

    Raises:
        InvalidRequestError: the file is no PDF, needs a password, or is too long.
    """
    if len(data) > MAX_BYTES:
        raise InvalidRequestError(f"{path}: the PDF is too large: {len(data)} bytes > {MAX_BYTES} maximum")
    try:
        with _lock, pypdfium2.PdfDocument(data) as pdf:
            if pages_before + len(pdf) > MAX_PAGES:
                raise InvalidRequestError(f"{path}: A maximum of {MAX_PAGES} PDF pages may be provided.")
            return _extract_texts(pdf, path)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise InvalidRequestError(f"{path}: The PDF specified is password protected.") from error
        raise InvalidRequestError(
            f"{path}: The PDF specified was not valid: it could not be read as a PDF"
        ) from error


def _extract_texts(pdf: pypdfium2.PdfDocument, path: str) -> list[str]:
    texts = []
    room = MAX_CHARACTERS
    for page in pdf:
        page_text = page.get_textpage()
        room -= page_text.count_chars()
        if room < 0:
            raise InvalidRequestError(f"{path}: the PDF holds more than {MAX_CHARACTERS} characters of text")
        texts.append(page_text.get_text_bounded().replace("\r\n", "\n").replace(_LINE_END_HYPHEN, "-"))
        page.close()
    return texts
