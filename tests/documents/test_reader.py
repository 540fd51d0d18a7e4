"""Text of PDF files, and what files that break their parser cost."""

import asyncio
import random
import re
import zlib
from pathlib import Path

import psutil
import pytest

from commonweight.documents import DocumentError, DocumentReader, Limits
from commonweight.documents import reader as module
from pdf_files import MEMORY_BOMBS, pdf, pdf_of_content

NOT_VALID = "The PDF specified was not valid"
SMALL = Limits(memory=100 * 2**20)


async def read(*files: bytes, limits: Limits | None = None) -> list[list[str]]:
    async with DocumentReader(limits) as reader:
        return [await reader.read_pdf(data) for data in files]


async def refusal(*files: bytes, limits: Limits | None = None) -> str:
    """Why the last one was refused."""
    async with DocumentReader(limits) as reader:
        for data in files[:-1]:
            await reader.read_pdf(data)
        with pytest.raises(DocumentError) as error:
            await reader.read_pdf(files[-1])
    return str(error.value)


async def test_pages_and_lines_stay_apart() -> None:
    data = pdf("Grass is green.\nThe sky (above) is blue.", "", "Été: 5 € \\ 3")
    assert await read(data) == [["Grass is green.\nThe sky (above) is blue.", "", "Été: 5 € \\ 3"]]


async def test_a_word_cut_by_the_end_of_a_line_keeps_its_hyphen() -> None:
    assert await read(pdf("a well-\nknown fact\n5-\n6")) == [["a well-known fact\n5-\n6"]]


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"%PDF-1.4\n", b"\0" * 1000, pdf("a")[:300], pdf()], ids=["empty", *"hpzct"]
)
async def test_what_is_no_pdf_is_refused(data: bytes) -> None:
    assert await refusal(data) == f"{NOT_VALID}: it could not be read as a PDF"
    # And the next one can be read.
    async with DocumentReader() as reader:
        with pytest.raises(DocumentError):
            await reader.read_pdf(data)
        assert await reader.read_pdf(pdf("a")) == ["a"]


async def test_a_locked_file_is_refused() -> None:
    assert await refusal(pdf("a", password=True)) == "The PDF specified is password protected."


async def test_pages_and_characters_of_all_files_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(pages=5, characters=10)
    three, two = pdf("a", "b", "c"), pdf("d", "e")
    assert await read(three, two, limits=limits) == [["a", "b", "c"], ["d", "e"]]
    assert await refusal(three, three, limits=limits) == "A maximum of 5 PDF pages may be provided."
    most = "the PDF files of a request may hold 10 characters of text together"
    assert await refusal(pdf("12345"), pdf("123456"), limits=limits) == most
    assert Limits().pages == 600
    monkeypatch.setattr(module, "MAX_PDF_BYTES", 5)
    assert await refusal(b"%PDF-1") == "the PDF is too large: 6 bytes > 5 maximum"


@pytest.mark.parametrize("name", MEMORY_BOMBS)
async def test_memory_is_bounded(name: str) -> None:
    assert (await refusal(MEMORY_BOMBS[name], limits=SMALL)).startswith(f"{NOT_VALID}: reading it takes too much")


async def test_memory_is_that_of_the_process_alone() -> None:
    # Seen: the highest memory that the system tells of a process begins with that of the process which started it.
    ballast = b"x" * SMALL.memory
    assert psutil.Process().memory_info().rss > SMALL.memory
    assert await read(pdf("a"), limits=SMALL) == [["a"]]
    del ballast


async def test_time_is_bounded_for_all_files_together(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = pdf_of_content(b"BT /F1 12 Tf " + b"(aaaaaaaaaa) Tj 1 1 Td " * 100_000 + b" ET")
    late = f"{NOT_VALID}: reading it takes too long"
    async with DocumentReader(Limits(seconds=0.5)) as reader:
        with pytest.raises(DocumentError, match=late):
            for _ in range(100):
                await reader.read_pdf(slow)
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.001)
    assert await refusal(slow) == late


async def test_a_process_is_killed_with_its_request() -> None:
    reader = DocumentReader()

    async def work() -> None:
        async with reader:
            while True:
                await reader.read_pdf(MEMORY_BOMBS["graphics states"])

    task = asyncio.create_task(work())
    while reader._process is None:
        await asyncio.sleep(0.001)
    process = psutil.Process(reader._process.pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not process.is_running()


async def test_several_are_read_at_once() -> None:
    files = [pdf(*(f"file {i}, page {j}" for j in range(1 + i % 5))) for i in range(12)]
    texts = await asyncio.gather(*(read(data) for data in files))
    assert texts == [[[f"file {i}, page {j}" for j in range(1 + i % 5)]] for i in range(12)]


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="needs Linux's /proc")
async def test_the_process_has_no_rights_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONWEIGHT_SECRET", "of the server")
    async with DocumentReader() as reader:
        await reader.read_pdf(pdf("a"))
        assert reader._process is not None
        folder = Path(f"/proc/{reader._process.pid}")
        assert b"COMMONWEIGHT" not in (folder / "environ").read_bytes()
        assert (folder / "oom_score_adj").read_text() == "1000\n"
        assert re.search(r"^Max open files +3 +3 ", (folder / "limits").read_text(), re.MULTILINE)
        # Its pipes, and the file that tells its memory.
        opened = {str(each.readlink()).split(":")[0] for each in (folder / "fd").iterdir()}
        assert opened <= {"pipe", "socket", "/dev/null", f"{folder}/statm"}


async def feed(files: list[bytes]) -> None:
    """Read files, some at a time; each is read or refused."""

    async def feed_some(some: list[bytes]) -> None:
        for data in some:
            async with DocumentReader(SMALL) as reader:
                try:
                    assert all(isinstance(page, str) for page in await reader.read_pdf(data))
                except DocumentError as error:
                    assert str(error)

    before = psutil.Process().memory_info().rss
    await asyncio.gather(*(feed_some(files[i::2]) for i in range(2)))
    assert psutil.Process().memory_info().rss < before + 200 * 2**20


async def test_damaged_files_are_read_or_refused() -> None:
    whole = pdf("Grass is green.", "The sky is blue.")
    await feed(
        [whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :] for place in range(0, len(whole), 23)]
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_mutated_and_generated_files_are_read_or_refused() -> None:
    draw = random.Random(19)
    wholes = [
        pdf("Grass is green.", "The sky is blue."),
        pdf_of_content(b"BT /F1 12 Tf (a) Tj ET"),
        *MEMORY_BOMBS.values(),
    ]
    await feed([mutate(draw.choice(wholes), draw) for _ in range(400)] + [generate(draw) for _ in range(400)])


def mutate(data: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.randint(1, 8)):
        start = draw.randrange(len(data))
        end = start + draw.randint(0, 30)
        piece = draw.choice(
            [b"", data[start:end] * draw.randint(2, 999), draw.randbytes(3), b"6 0 R", b"999999999", b"<<" * 99]
        )
        data = data[:start] + piece + data[end:]
    return data


OPERATORS = [
    b"q",
    b"Q",
    b"BT",
    b"ET",
    b"/X Do",
    b"/F1 12 Tf",
    b"(a) Tj",
    b"[(a) -9 (b)] TJ",
    b"1 0 0 1 5 5 cm",
    b"/a BMC",
    b"EMC",
]
OPERATORS += [
    b"/a <</b <</c 6 0 R>>>> BDC",
    b"0 0 m",
    b"9 9 l",
    b"S",
    b"BI /W 9 /H 9 ID a EI",
    b"[",
    b"<<",
    b"(",
    b"\0" * 99,
    b"1e999 Tz",
]


def generate(draw: random.Random) -> bytes:
    content = b" ".join(draw.choices(OPERATORS, k=draw.randint(1, 40)) * draw.choice([1, 1, 1000, 100_000]))
    inner = b" ".join(draw.choices(OPERATORS, k=9))
    kinds = draw.choice(
        [b"/Type/XObject/Subtype/Form/BBox[0 0 1 1]", b"/Filter[/FlateDecode/ASCIIHexDecode]", b"/Kids[6 0 R]"]
    )
    inner = draw.choice([inner, zlib.compress(inner)])
    more = b"<<%b/Resources<</XObject<</X 6 0 R>>/Font<</F1 6 0 R>>>>/Length %d>>stream\n%b\nendstream" % (
        kinds,
        len(inner),
        inner,
    )
    return pdf_of_content(content, b"/Font<</F1 5 0 R>>/XObject<</X 6 0 R>>", more)
