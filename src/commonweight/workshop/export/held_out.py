"""Text that an export is compared on: of a dataset folder, a file, or given as it is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from commonweight.workshop.export.settings import ExportError

MIN_POSITIONS = 32
"""Fewer say nothing of a model."""

Text = Path | Sequence[str]


def make_windows(tokenizer: Tokenizer, text: Text, positions: int, length: int) -> list[list[int]]:
    """Token ids of a text in windows of at most ``length``, of which all but the first are positions to compare.

    Raises:
        ExportError: there is too little text, or none that can be read.
    """
    windows: list[list[int]] = []
    pending: list[int] = []
    left = positions
    for document in iterate_texts(text):
        pending += tokenizer.encode(document + "\n\n", add_special_tokens=False).ids
        while len(pending) >= length and left > 0:
            windows.append(pending[: min(length, left + 1)])
            left -= len(windows[-1]) - 1
            pending = pending[length:]
        if left <= 0:
            return windows
    if len(pending) > 1:
        windows.append(pending[: left + 1])
    if (found := sum(len(window) - 1 for window in windows)) < MIN_POSITIONS:
        raise ExportError(f"The text to compare exports on has {found} positions; {MIN_POSITIONS} are the least.")
    return windows


def iterate_texts(text: Text) -> Iterator[str]:
    """Its documents; of a dataset folder those that no model was trained on.

    Raises:
        ExportError: it cannot be read.
        DataError: the folder is not whole.
    """
    if not isinstance(text, Path):
        yield from text
    elif text.is_dir():
        yield from _read_rows(text)
    else:
        try:
            yield text.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ExportError(f"The text {text.name} cannot be read as UTF-8.") from error


def _read_rows(folder: Path) -> Iterator[str]:
    from commonweight.workshop.data.dataset import read_rows

    for row in read_rows(folder, "validation"):
        content = row.content
        yield content.text or "\n\n".join(message.content for message in content.list_messages())
