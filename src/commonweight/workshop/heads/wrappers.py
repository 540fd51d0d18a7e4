"""Wrappers of a text: harmless words around it, and templates of jailbreaks. They make rows of an evaluation."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np

from commonweight.workshop.data.duplicates import NearDuplicates
from commonweight.workshop.data.rows import Content
from commonweight.workshop.heads.sources import LabelledSource
from commonweight.workshop.heads.states import replace_surrogates

Side = Literal["before", "after", "both"]
SIDES: tuple[Side, ...] = ("before", "after", "both")
PADDING_WORDS = (35, 200, 2000)
NEAR_TEMPLATE = 0.5
"""Share of five-word sequences from which a template repeats another."""
_BLANK = re.compile(
    r"[\[{<(]\s*(?:insert|enter|your|put|place|type)?[\s_]*(?:your|the|my)?[\s_]*"
    r"(?:prompts?|questions?|requests?|queries|query|instructions?|text)[\s_]*(?:goes)?[\s_]*(?:here)?\s*[\]}>)]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Padding:
    """Harmless words around a text."""

    words: int
    side: Side

    @property
    def name(self) -> str:
        """Name of the rows that are made with it."""
        return f"{self.words} words {'around' if self.side == 'both' else self.side}"

    def apply(self, text: str, seed: int) -> str:
        """Put words around a text: a passage of public-domain text, chosen by the seed."""
        before = {"before": self.words, "after": 0, "both": self.words // 2}[self.side]
        start = int(np.random.default_rng(seed).integers(len(load_harmless_words())))
        return "\n\n".join(
            part
            for part in (_take_words(start, before), text, _take_words(start + before, self.words - before))
            if part
        )


PADDINGS = tuple(Padding(words, side) for words in PADDING_WORDS for side in SIDES)


@cache
def load_harmless_words() -> list[str]:
    """Load the words of the public-domain pages that ship with the package (documentation of SQLite)."""
    return [word for page in load_pages() for word in page.split()]


@cache
def load_pages() -> list[str]:
    """Load the public-domain pages that ship with the package."""
    path = files("commonweight.workshop.recipe") / "recipes" / "sqlite" / "text.jsonl"
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def list_templates(source: LabelledSource, category: str) -> list[str]:
    """List the jailbreak prompts of a category, without those that much resemble an earlier one or one elsewhere.

    A bundle may have been trained on the other categories, so that what repeats one of those is no test.
    """
    others = [replace_surrogates(row.text) for row in source.rows if row.category != category]
    own = [replace_surrogates(row.text) for row in source.rows if row.category == category]
    duplicates = NearDuplicates(NEAR_TEMPLATE)
    for number, text in enumerate([*others, *own]):
        duplicates.add(number, Content("text", text))
    repeated = set(duplicates.find())
    return [text for number, text in enumerate(own, len(others)) if number not in repeated]


def fill_template(template: str, text: str) -> str:
    """Put a text into a template: where it has a blank for one, or else at its end."""
    blanks = list(_BLANK.finditer(template))
    if not blanks:
        return f"{template}\n\n{text}"
    start, end = blanks[-1].span()
    return template[:start] + text + template[end:]


def fill_templates(templates: Sequence[str], texts: Sequence[str], seed: int = 0) -> Iterator[str]:
    """Put every text into a template that is drawn by the seed; each template is used before one is used twice."""
    draw = np.random.default_rng(seed)
    order: list[int] = []
    for text in texts:
        order = order or draw.permutation(len(templates)).tolist()
        yield fill_template(templates[order.pop()], text)


def _take_words(start: int, count: int) -> str:
    words = load_harmless_words()
    return " ".join(words[(start + i) % len(words)] for i in range(count))
