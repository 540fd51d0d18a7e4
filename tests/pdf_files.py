"""Small PDF files, written by hand."""


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
    file = b"%PDF-1.4\n"
    table = b"0000000000 65535 f \n"
    for number, body in enumerate(objects, 1):
        table += f"{len(file):010d} 00000 n \n".encode()
        file += f"{number} 0 obj".encode() + body + b"endobj\n"
    # Neither half of the password fits anything, so the file asks for one.
    lock = b"/ID[(a)(a)]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O(%b)/U(%b)>>" % (b"o" * 32, b"u" * 32)
    size = f"{len(objects) + 1}".encode()
    trailer = b"trailer<</Size " + size + b"/Root 1 0 R" + (lock if password else b"") + b">>\n"
    end = f"startxref\n{len(file)}\n%%EOF".encode()
    return file + b"xref\n0 " + size + b"\n" + table + trailer + end


def _content(page: str) -> bytes:
    lines = (f"<{line.encode('cp1252').hex()}> Tj" for line in page.splitlines())
    return f"BT /F1 12 Tf 14 TL 72 720 Td {' T* '.join(lines)} ET".encode()
