"""Makes ``text.jsonl``, ``held_out.jsonl`` and ``questions.jsonl`` from SQLite's documentation (public domain).

    python extract.py FOLDER_OF_HTML_PAGES

Pages become one document each, every fifteenth of them for measuring: their prose without tables, code, navigation
and generated lists. Questions are framed here; every answer is a paragraph of the documentation, or two, as its
authors wrote them.
"""

import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

# Generated lists, histories of changes, and pages about companies, people and files for download.
LEFT_OUT = re.compile(
    r"requirements|crossref|sitemap|keyword|capi3ref|syntaxdiagrams|toc|doc|changes|chronology|news|press|support|crew"
    r"|consortium|download|books|cves|famous|index|c3ref/(?:intro|funclist|constlist|objlist)|codeof|lts|hirely|hp1|mingw"
    r"|lang_keywords|releaselog|vtablist|sqlanalyze|prosupport|mostdeployed|speed|fullsql|version|copyright"
)
SKIPPED = {"script", "style", "svg", "table", "pre", "nav", "title", "h1", "form"}
BLOCKS = {"p", "li", "dd", "dt", "blockquote", "h2", "h3", "h4", "div", "ul", "ol", "dl"}
MIN_LETTERS, MAX_LETTERS = 60, 420
MAX_PAGE = 12_000
"""Letters of a page that are kept, so that a few long pages do not fill the text."""


class Paragraphs(HTMLParser):
    """Collects the paragraphs of a page as (tag, text)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._parts: list[str] = []
        self._tag = "p"
        self._skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in SKIPPED:
            self._skipping += 1
        elif tag in BLOCKS:
            self._end(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in SKIPPED:
            self._skipping = max(0, self._skipping - 1)
        elif tag in BLOCKS:
            self._end("p")

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._parts.append(data)

    def _end(self, tag: str) -> None:
        text = " ".join("".join(self._parts).split())
        self._parts = []
        if text:
            self.found.append((self._tag, text))
        self._tag = tag


def read_page(path: Path) -> list[tuple[str, str]]:
    """Paragraphs of a page, after its navigation."""
    html = path.read_text(encoding="utf-8", errors="replace")
    html = html.rpartition("<!-- keywords:")[2] if "<!-- keywords:" in html else html.partition("</script>")[2]
    parser = Paragraphs()
    parser.feed(html)
    parser.close()
    return [(tag, re.sub(r"^[\d.]+ +", "", text)) for tag, text in parser.found]


def is_prose(text: str) -> bool:
    """Whether a paragraph is a sentence or several, in plain letters."""
    plain = sum(letter.isalpha() or letter in " ,." for letter in text)
    return len(text) >= MIN_LETTERS and text[-1] in ".:?!" and plain > 0.85 * len(text) and text.isascii()


def make_text(pages: dict[str, list[tuple[str, str]]]) -> Iterator[dict[str, str]]:
    """One row a page."""
    seen: set[str] = set()
    for name, paragraphs in pages.items():
        kept = [text for _, text in paragraphs if is_prose(text) and text not in seen]
        seen.update(kept)
        text = "\n\n".join(kept)
        if len(text) > MAX_PAGE:
            text = text[: text.rindex("\n\n", 0, MAX_PAGE)]
        if len(text) > 400:
            yield {"text": text, "page": name}


def make_questions(pages: dict[str, list[tuple[str, str]]], left_out: set[str]) -> Iterator[dict[str, object]]:
    """One row a conversation: of one question, or of two that stand next to each other."""
    for name, paragraphs in pages.items():
        if name in left_out:
            continue
        pairs = [(question, answer) for question, answer in _pair(name, paragraphs) if is_answer(answer)]
        for index, (question, answer) in enumerate(pairs):
            turns = [("user", question), ("assistant", answer)]
            if index % 4 == 3:
                earlier = pairs[index - 1]
                turns = [("user", earlier[0]), ("assistant", earlier[1]), *turns]
            yield {"messages": [{"role": role, "content": text} for role, text in turns], "page": name}


def is_answer(text: str) -> bool:
    """Whether a paragraph can be a whole answer."""
    return MIN_LETTERS <= len(text) <= MAX_LETTERS and text.endswith(".") and text.isascii()


def _pair(name: str, paragraphs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for (tag, title), (_, text) in pairwise(paragraphs):
        if tag == "dt" and re.fullmatch(r"[a-z_0-9]+\(.*\)", title):
            yield f"What does the SQL function {title} do?", text
        elif tag == "h3" and (code := re.search(r"\bSQLITE_[A-Z_]+\b", title)):
            yield f"What does {code[0]} mean?", text
        elif tag in {"h2", "h3"} and title.endswith("?"):
            yield title, text
        elif tag in {"h2", "h3", "h4"} and 3 < len(title) < 60 and re.fullmatch(r"[A-Z][A-Za-z0-9 ,'()-]+", title):
            subject = title if title.isupper() or title.split()[0].isupper() else title[0].lower() + title[1:]
            yield f"What should I know about {subject} in SQLite?", text
    if name.startswith("c3ref/"):
        for _, text in paragraphs:
            if described := re.match(r"The (sqlite3_\w+\(\)) (?:interface|routine|function|method)", text):
                yield f"What is {described[1]} for?", text


def main() -> None:
    """Write both files beside this one."""
    root = Path(sys.argv[1])
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.html"))
    pages = {name: read_page(root / name) for name in names if not LEFT_OUT.search(name)}
    text = list(make_text(pages))
    held_out = text[7::15]
    kept = [row for row in text if row not in held_out]
    for file, rows in (
        ("text.jsonl", kept),
        ("held_out.jsonl", held_out),
        ("questions.jsonl", make_questions(pages, {row["page"] for row in held_out})),
    ):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        Path(__file__).with_name(file).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
