"""Sources of labelled texts, for compiling and measuring: files of JSON lines, with notes on each.

A line has ``text``, ``y`` (1 harmful, 0 harmless), perhaps ``cat`` (the source's own category), ``resp`` (an
answer; then ``y`` is about that), ``principle`` (an id), ``licence`` (an SPDX expression) and ``generator`` (the
model that wrote it, with the SHA-256 of its file as ``generator_digest``). ``sources.toml`` says what the public
sources are good for, their licences, who wrote them, and which principle a category stands for; other files are
taken as their lines say.
"""

import gzip
import hashlib
import json
import tomllib
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from commonweight.charter.principle import Charter

Role = Literal["harmful", "harmless", "material", "hard", "manipulation", "answers", "mixed", "unused"]
"""``material`` is harmless and no user's request, ``hard`` is harmless and looks otherwise; ``manipulation``
addresses the model, and is harmless by itself."""


class SourceError(Exception):
    """A file is malformed; the message says where, in one sentence."""


@dataclass(frozen=True)
class LabelledText:
    """One labelled text."""

    text: str
    is_harmful: bool
    category: str = ""
    answer: str | None = None
    principle: str | None = None
    licence: str | None = None
    generator: str | None = None
    """Model that generated the answer, or the prompt where there is no answer. None: human-written, or unknown."""


@dataclass(frozen=True)
class LabelledSource:
    """Labelled texts of one file, with its origin."""

    name: str
    role: Role
    licence: str
    rows: tuple[LabelledText, ...]
    sha256: str
    categories: dict[str, str]
    """Principles by the beginnings of categories."""
    generator: str | None = None
    """The models that wrote texts of it; None: people did."""

    def get_principle(self, row: LabelledText, charter: Charter) -> str | None:
        """Get the principle that a harmful row violates, as far as the notes say."""
        ids = {principle.id for principle in charter.principles}
        if row.principle is not None:
            return row.principle if row.principle in ids else None
        digest = hashlib.sha256(row.text.encode("utf-8", "replace")).hexdigest()
        for principle in charter.principles:
            for example in principle.violating:
                if isinstance(example.text, str):
                    continue
                if example.text.source == self.name and digest.startswith(example.text.sha256):
                    return principle.id
        named = next((p for prefix, p in self.categories.items() if row.category.startswith(prefix)), None)
        if named is not None:
            return named if named in ids else None
        hazard = row.category.split("_")[0]
        holders = [one.id for one in charter.principles if hazard in one.hazards]
        return holders[0] if len(holders) == 1 else None

    def is_elsewhere(self, row: LabelledText, principle: str | None, restricted: Collection[str]) -> bool:
        """Whether a harmful row is outside all principles in ``restricted``."""
        if principle is not None:
            return principle not in restricted
        return row.principle is not None or any(row.category.startswith(prefix) for prefix in self.categories)


def read_source(path: Path) -> LabelledSource:
    """Read the source in a file.

    Raises:
        SourceError: it cannot be read.
    """
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    try:
        lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode().split("\n")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise SourceError(f"{path}: neither text nor text in gzip ({type(error).__name__})") from error
    rows = tuple(_parse_line(path, i, line) for i, line in enumerate(lines, 1) if line.strip())
    note = load_notes().get(name, {})
    noted_licence = note.get("licence", "unknown")
    generators = sorted({row.generator for row in rows if row.generator})
    return LabelledSource(
        name=name,
        role=note.get("role", "mixed"),
        licence=combine_licences(row.licence or noted_licence for row in rows) if rows else noted_licence,
        rows=rows,
        sha256=hashlib.sha256(content).hexdigest(),
        categories=note.get("categories", {}),
        generator=", ".join(generators) or note.get("generator"),
    )


def combine_licences(licences: Iterable[str]) -> str:
    """Combine licences that all hold into one SPDX expression, each named once."""
    return " AND ".join(sorted({one for each in licences for one in each.split(" AND ")}))


def find_files(paths: list[Path]) -> Iterator[Path]:
    """Find the files of paths: these, and those in the folders among them."""
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.iterdir() if one.name.endswith((".jsonl", ".jsonl.gz")))
        else:
            yield path


@cache
def load_notes() -> dict[str, dict[str, Any]]:
    """Load the notes on public sources, by name."""
    return tomllib.loads((files("commonweight.workshop.heads") / "sources.toml").read_text())


def _parse_line(path: Path, number: int, line: str) -> LabelledText:
    try:
        return _parse_row(json.loads(line))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(
            f"{path}:{number}: no JSON object with `text` and `y` ({type(error).__name__})"
        ) from error


def _parse_row(line: dict[str, Any]) -> LabelledText:
    text = line["text"]
    if not isinstance(text, str) or line["y"] not in (0, 1):
        raise ValueError("text is no text, or y neither 0 nor 1")
    generator, digest = line.get("generator"), line.get("generator_digest")
    return LabelledText(
        text=text,
        is_harmful=line["y"] == 1,
        category=str(line.get("cat") or ""),
        answer=line.get("resp"),
        principle=line.get("principle"),
        licence=line.get("licence"),
        generator=f"{generator} (sha256 {digest})" if generator and digest else generator,
    )
