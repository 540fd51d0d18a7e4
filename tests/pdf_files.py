"""Small PDF files, written by hand."""

import zlib
from collections.abc import Sequence


def pdf(*pages: str, password: bool = False) -> bytes:
    """A file with these pages, each the lines of its text."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for i, page in enumerate(pages):
        content = _content(page)
        fonts = "/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>"
        objects.append(f"<</Type/Page/Parent 2 0 R{fonts}/Contents {5 + 2 * i} 0 R>>".encode())
        objects.append(f"<</Length {len(content)}>>stream\n".encode() + content + b"\nendstream")
    # Neither half of the password fits anything, so the file asks for one.
    lock = b"/ID[(a)(a)]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O(%b)/U(%b)>>" % (b"o" * 32, b"u" * 32)
    return _assemble(objects, lock if password else b"")


def pdf_of_content(content: bytes, resources: bytes = b"/Font<</F1 5 0 R>>", *more: bytes) -> bytes:
    """A file with one page of this content, which is compressed; ``more`` are objects from number 6 on."""
    content = zlib.compress(content, 9)
    return _assemble(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<<%b>>/Contents 4 0 R>>" % resources,
            b"<</Filter/FlateDecode/Length %d>>stream\n%b\nendstream" % (len(content), content),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            *more,
        ]
    )


def slow_pdf(pages: int) -> bytes:
    """A file of pages that take tenths of a second each, of the one content."""
    content = zlib.compress(b"BT /F1 12 Tf " + b"(aaaaaaaaaa) Tj 1 1 Td " * 100_000 + b" ET", 9)
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>/Contents 4 0 R>>"
    kids = b" ".join(b"%d 0 R" % number for number in range(5, 5 + pages))
    return _assemble(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Count %d/Kids[%b]>>" % (pages, kids),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            b"<</Filter/FlateDecode/Length %d>>stream\n%b\nendstream" % (len(content), content),
            *[page] * pages,
        ]
    )


def _assemble(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    file = b"%PDF-1.4\n"
    table = b"0000000000 65535 f \n"
    for number, body in enumerate(objects, 1):
        table += f"{len(file):010d} 00000 n \n".encode()
        file += f"{number} 0 obj".encode() + body + b"endobj\n"
    size = f"{len(objects) + 1}".encode()
    end = f"startxref\n{len(file)}\n%%EOF".encode()
    return (
        file
        + b"xref\n0 "
        + size
        + b"\n"
        + table
        + b"trailer<</Size "
        + size
        + b"/Root 1 0 R"
        + trailer
        + b">>\n"
        + end
    )


def _content(page: str) -> bytes:
    lines = (f"<{line.encode('cp1252').hex()}> Tj" for line in page.splitlines())
    return f"BT /F1 12 Tf 14 TL 72 720 Td {' T* '.join(lines)} ET".encode()


_FORM = b"/Type/XObject/Subtype/Form/BBox[0 0 1 1]/Resources<</XObject<</X 6 0 R>>>>"

MEMORY_BOMBS = {
    "graphics states": pdf_of_content(b"q " * 2_000_000),
    "marked content": pdf_of_content(b"/a BMC " * 1_000_000),
    "text": pdf_of_content(b"BT /F1 12 Tf " + b"(aaaaaaaaaa) Tj " * 300_000 + b" ET"),
    "zeros": pdf_of_content(b"\0" * 120_000_000),
    "a form that lists itself": pdf_of_content(
        b"/X Do", b"/XObject<</X 6 0 R>>", b"<<%b/Length 11>>stream\n/X Do /X Do\nendstream" % _FORM
    ),
}
"""Small files that would take hundreds of MB, or all there is."""
