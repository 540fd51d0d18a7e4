"""Text of PDF files."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from commonweight.messages.errors import InvalidRequestError
from commonweight.prompting import pdf as module
from commonweight.prompting.pdf import extract_pages
from pdf_files import pdf

WHERE = "messages.0.content.1.document.source"


def refusal(data: bytes, pages_before: int = 0) -> str:
    with pytest.raises(InvalidRequestError) as error:
        extract_pages(data, WHERE, pages_before)
    return error.value.message


def test_pages_and_lines_stay_apart() -> None:
    data = pdf("Grass is green.\nThe sky (above) is blue.", "", "Été: 5 € \\ 3")
    assert extract_pages(data, WHERE) == ["Grass is green.\nThe sky (above) is blue.", "", "Été: 5 € \\ 3"]


def test_a_word_cut_by_the_end_of_a_line_keeps_its_hyphen() -> None:
    assert extract_pages(pdf("a well-\nknown fact\n5-\n6"), WHERE) == ["a well-known fact\n5-\n6"]


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"%PDF-1.4\n", b"\0" * 1000, pdf("a")[:300], pdf()], ids=["empty", *"hpzct"]
)
def test_what_is_no_pdf_is_refused_with_its_place(data: bytes) -> None:
    assert refusal(data) == f"{WHERE}: The PDF specified was not valid: it could not be read as a PDF"


def test_a_locked_file_is_refused() -> None:
    assert refusal(pdf("a", password=True)) == f"{WHERE}: The PDF specified is password protected."


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(extract_pages(pdf("a", "b", "c"), WHERE, 597)) == 3
    assert refusal(pdf("a", "b", "c"), 598) == f"{WHERE}: A maximum of 600 PDF pages may be provided."
    monkeypatch.setattr(module, "MAX_CHARACTERS", 5)
    assert extract_pages(pdf("abc", "de"), WHERE) == ["abc", "de"]
    assert refusal(pdf("abc", "def")) == f"{WHERE}: the PDF holds more than 5 characters of text"
    monkeypatch.setattr(module, "MAX_BYTES", 5)
    assert refusal(b"%PDF-1") == f"{WHERE}: the PDF is too large: 6 bytes > 5 maximum"


def test_threads_do_not_meet_in_the_library() -> None:
    files = [pdf(*(f"file {i}, page {j}" for j in range(1 + i % 5))) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda data: extract_pages(data, WHERE), files))
    assert texts == [[f"file {i}, page {j}" for j in range(1 + i % 5)] for i in range(40)]


def test_damaged_files_never_do_anything_but_be_read_or_refused() -> None:
    whole = pdf("Grass is green.", "The sky is blue.")
    for place in range(0, len(whole), 7):
        damaged = whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :]
        try:
            assert len(extract_pages(damaged, WHERE)) <= 2
        except InvalidRequestError as error:
            assert error.message.startswith(WHERE)
