"""The text of PDF files, page by page."""

from threading import Lock

import pypdfium2  # type: ignore[import-untyped]

from commonweight.messages.errors import InvalidRequestError

MAX_PAGES = 600
"""In one request."""
MAX_BYTES = 32 * 2**20
MAX_CHARACTERS = 5_000_000

# The library keeps one state for the whole process: no two of its functions may run at once.
_lock = Lock()

# How it writes a hyphen at the end of a line; the line break after it is left out.
_LINE_END_HYPHEN = "\x02"


def extract_pages(data: bytes, where: str, pages_before: int = 0) -> list[str]:
    """The text of each page; a page that is a picture has none. Milliseconds a page, in the caller's thread.

    ``where`` is the file's place in the request, and ``pages_before`` counts the pages of other files in it. The
    words of errors are the API's: agents tell by them that they should go on without the file.

    Raises:
        InvalidRequestError: it is no PDF, needs a password, or is too long.
    """
    if len(data) > MAX_BYTES:
        raise InvalidRequestError(f"{where}: the PDF is too large: {len(data)} bytes > {MAX_BYTES} maximum")
    try:
        with _lock, pypdfium2.PdfDocument(data) as pdf:
            if pages_before + len(pdf) > MAX_PAGES:
                raise InvalidRequestError(f"{where}: A maximum of {MAX_PAGES} PDF pages may be provided.")
            return _texts(pdf, where)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise InvalidRequestError(f"{where}: The PDF specified is password protected.") from error
        raise InvalidRequestError(
            f"{where}: The PDF specified was not valid: it could not be read as a PDF"
        ) from error


def _texts(pdf: pypdfium2.PdfDocument, where: str) -> list[str]:
    texts = []
    room = MAX_CHARACTERS
    for page in pdf:
        page_text = page.get_textpage()
        room -= page_text.count_chars()
        if room < 0:
            raise InvalidRequestError(f"{where}: the PDF holds more than {MAX_CHARACTERS} characters of text")
        texts.append(page_text.get_text_bounded().replace("\r\n", "\n").replace(_LINE_END_HYPHEN, "-"))
        page.close()
    return texts
