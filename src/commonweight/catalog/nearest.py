"""Suggestions for names that do not exist."""

import difflib
from collections.abc import Iterable, Sequence


def find_nearest(name: str, candidates: Iterable[str], most: int = 3) -> list[str]:
    """The candidates most similar to a name, nearest first; neither case nor ``.gguf`` counts."""
    by_key: dict[str, str] = {}
    for candidate in candidates:
        by_key.setdefault(_make_key(candidate), candidate)
    return [by_key[key] for key in difflib.get_close_matches(_make_key(name), by_key, most)]


def format_suggestions(suggestions: Sequence[str]) -> str:
    """The end of an error message that offers them; empty without any."""
    return f"; did you mean {' or '.join(suggestions)}?" if suggestions else ""


def _make_key(name: str) -> str:
    return name.casefold().removesuffix(".gguf")
