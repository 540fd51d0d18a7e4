"""What an uploaded file is, and what it may be called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.files.names import clean_name, make_name
from commonweight.files.types import Sniffer
from commonweight.messages.errors import InvalidRequestError

SAMPLES = {
    "application/pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "image/png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "image/jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "image/gif": b"GIF89a\x01\0\x01\0",
    "image/webp": b"RIFF\x24\0\0\0WEBPVP8 ",
    "text/plain": "Grüße, 世界 🙂".encode(),
    "application/octet-stream": b"\0\x01\x02\xff",
}


def sniffed(data: bytes, declared: str = "", at_once: int = 1000) -> str:
    sniffer = Sniffer()
    for start in range(0, len(data), at_once):
        sniffer.feed(data[start : start + at_once])
    return sniffer.detect_mime_type(declared)


@pytest.mark.parametrize("at_once", [1, 3, 1000])
@pytest.mark.parametrize("kind", SAMPLES)
def test_a_file_that_is_declared_as_nothing_is_what_its_content_is(kind: str, at_once: int) -> None:
    for declared in (
        "",
        "application/octet-stream",
        "APPLICATION/Octet-Stream",
        "nonsense",
        "a/b\r\nx: y",
        "x" * 999,
    ):
        assert sniffed(SAMPLES[kind], declared, at_once=at_once) == kind


@pytest.mark.parametrize("declared", SAMPLES)
@pytest.mark.parametrize("kind", SAMPLES)
def test_declaration_and_content_must_agree(kind: str, declared: str) -> None:
    if declared in (kind, "application/octet-stream"):
        assert sniffed(SAMPLES[kind], declared) == kind
    else:
        with pytest.raises(InvalidRequestError, match=f"file: it is declared as {declared}, but its content is"):
            sniffed(SAMPLES[kind], declared)


@pytest.mark.parametrize(
    ("data", "declared", "kind"),
    [
        (b"a,b", "text/csv; charset=latin-1", "text/csv"),
        (b"{}", "application/json", "application/json"),
        (b"PK\3\4", "application/zip", "application/zip"),
        (b"<svg/>", "image/svg+xml", "image/svg+xml"),
        (b"\xff\xd8\xff", "image/jpg", "image/jpeg"),
        (b"junk\n%PDF-1.4", "application/pdf", "application/pdf"),
        (b"junk\n%PDF-1.4", "", "text/plain"),
        (b"", "", "text/plain"),
        (b"", "text/html", "text/html"),
    ],
)
def test_kinds(data: bytes, declared: str, kind: str) -> None:
    assert sniffed(data, declared) == kind


@pytest.mark.parametrize(
    "data", [b"\xff\xfea\0", "größer".encode("latin-1"), b"a\0b", b"cut \xe4\xb8", b"\xed\xa0\x80"]
)
def test_text_is_utf_8(data: bytes) -> None:
    assert sniffed(data) == "application/octet-stream"
    with pytest.raises(InvalidRequestError, match="not UTF-8 text"):
        sniffed(data, "text/plain")


@given(st.binary(max_size=40), st.integers(1, 7))
def test_it_does_not_matter_in_which_parts_it_comes(data: bytes, at_once: int) -> None:
    assert sniffed(data, at_once=at_once) == sniffed(data)


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("/etc/shadow", "shadow"),
        ("C:\\Users\\me\\a.txt", "a.txt"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("a/b\\c", "c"),
        ("", ""),
        ("folder/", ""),
        ("....", "...."),
        (".hidden", ".hidden"),
        ("%2e%2e%2fx", "%2e%2e%2fx"),
        ("Übersicht – 1 🙂.txt", "Übersicht – 1 🙂.txt"),
        ("a" * 255, "a" * 255),
        ("x/" * 500 + "a", "a"),
    ],
)
def test_of_a_path_the_last_part_is_the_name(given_name: str, name: str) -> None:
    assert clean_name(given_name) == name


@pytest.mark.parametrize(
    "name",
    ["a" * 256, ".", "..", "a/..", "b\\.", *(f"a{c}b" for c in '<>:"|?*\0\n\r\t\x1b\x7f\x85\ud800')],
)
def test_names_that_no_file_may_have(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="file: the filename"):
        clean_name(name)


@given(st.text(max_size=300))
def test_names_are_harmless_or_refused(text: str) -> None:
    try:
        name = clean_name(text)
    except InvalidRequestError:
        return
    assert len(name) <= 255
    assert not set(name) & set('<>:"|?*\\/\0\r\n')
    assert name not in (".", "..")


def test_files_without_a_name() -> None:
    assert make_name("application/pdf") == "unnamed.pdf"
    assert make_name("text/plain") == "unnamed.txt"
    assert make_name("application/x-nobody-knows") == "unnamed"
