"""Long ordinary texts, of which a guard should refuse none: articles, code and transcripts that are installed.

Articles are pages of SQLite's documentation (public domain) and the topics of Python's language reference, code is
Python's standard library (both PSF licence), transcripts are questions and answers about SQLite. None of them is
stored again: each piece is cut from what is there.
"""

import json
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path

from commonweight.workshop.heads.wrappers import load_pages

MIN_TOKENS = 2048
_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "pydoc_data", "encodings", "__pycache__"}
"""Folders of the standard library that are tests, tables or other people's."""

CountTokens = Callable[[str], int]


def cut_long_texts(count_tokens: CountTokens, most: int) -> dict[str, list[str]]:
    """Cut pieces of at least :data:`MIN_TOKENS` tokens, ``most`` in all and about as many of each kind."""
    kinds: dict[str, Iterator[str]] = {
        "articles": cut_pieces(_iter_articles(), count_tokens),
        "code": cut_pieces(_iter_code(), count_tokens),
        "transcripts": cut_pieces(_iter_transcript(), count_tokens, joined=True),
    }
    found: dict[str, list[str]] = {name: [] for name in kinds}
    for turn in zip_longest(*kinds.values()):
        for name, piece in zip(found, turn, strict=True):
            if piece is not None and sum(map(len, found.values())) < most:
                found[name].append(piece)
        if sum(map(len, found.values())) >= most:
            break
    return found


def cut_pieces(texts: Iterable[str], count_tokens: CountTokens, *, joined: bool = False) -> Iterator[str]:
    """Cut texts into pieces of whole lines that have :data:`MIN_TOKENS` tokens or a line more.

    ``joined``: a piece may go over the ends of texts. What is left at an end is dropped.
    """
    lines: list[str] = []
    tokens = 0
    for text in texts:
        if not joined:
            lines, tokens = [], 0
        for line in text.splitlines(keepends=True):
            lines.append(line)
            tokens += count_tokens(line)
            if tokens >= MIN_TOKENS:
                yield "".join(lines)
                lines, tokens = [], 0


def _iter_articles() -> Iterator[str]:
    from pydoc_data.topics import topics

    for pair in zip_longest(load_pages(), _iter_sorted(topics)):
        yield from filter(None, pair)


def _iter_sorted(topics: dict[str, str]) -> Iterator[str]:
    return (topics[name] for name in sorted(topics))


def _iter_code() -> Iterator[str]:
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if not _SKIPPED & set(path.relative_to(library).parts):
            yield path.read_text(errors="replace")


def _iter_transcript() -> Iterator[str]:
    path = files("commonweight.workshop.recipe") / "recipes" / "sqlite" / "questions.jsonl"
    for line in path.read_text().splitlines():
        yield from _write_turns(json.loads(line)["messages"])


def _write_turns(messages: Sequence[dict[str, str]]) -> Iterator[str]:
    for message in messages:
        yield f"{message['role'].capitalize()}: {message['content']}\n"
