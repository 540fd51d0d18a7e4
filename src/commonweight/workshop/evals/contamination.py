"""Contamination: what a model was trained on, compared with the sets that it is measured on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

MAX_LISTED = 1000
"""Row ids of one set that are listed; all are counted."""


@dataclass(frozen=True)
class LineageStage:
    """A stage that a measured model depends on."""

    name: str
    folder: Path
    trains: bool
    """Whether a model learned from its rows as they are."""


class SetContamination(BaseModel):
    """One measured set."""

    model_config = ConfigDict(frozen=True)

    name: str
    compared_by: tuple[str, ...]
    """Filters of the lineage that compared rows with it."""
    dropped: int
    """Rows that these left out, since they share text with it."""
    trained: int
    """Rows of these stages that share text with it."""
    row_ids: tuple[str, ...]
    """Of these, the first ones."""


class Contamination(BaseModel):
    """The report on all measured sets."""

    model_config = ConfigDict(frozen=True)

    ngram_words: int
    rows: dict[str, int]
    """Rows that the model learned from or was validated on, by stage, however often it saw them."""
    sets: tuple[SetContamination, ...]


def find_contamination(stages: Sequence[LineageStage], measured: Sequence[Path]) -> Contamination:
    """Fold what filters found, and compare the rows that trained a model with the measured sets once more.

    Rows that were written after a filter (answers of a model) have passed none; here they are read, too.

    Args:
        stages: of the lineage; those without rows are passed over.
        measured: dataset folders of the measured sets.

    Raises:
        DataError: a folder is torn.
    """
    from commonweight.workshop.data.dataset import read_rows
    from commonweight.workshop.data.decontamination import NGRAM_WORDS, Decontaminator
    from commonweight.workshop.data.manifest import MANIFEST, read_manifest

    decontaminator = Decontaminator()
    for folder in measured:
        decontaminator.add_evaluation_set(read_rows(folder))
    compared: dict[str, list[str]] = {name: [] for name in decontaminator.names}
    dropped: Counter[str] = Counter()
    found: dict[str, dict[str, None]] = {name: {} for name in decontaminator.names}
    rows: dict[str, int] = {}
    for stage in stages:
        if not (stage.folder / MANIFEST).is_file():
            continue
        manifest = read_manifest(stage.folder)
        for name, count in manifest.contaminated.items():
            if name in compared:
                compared[name].append(stage.name)
                dropped[name] += count
        if stage.trains:
            rows[stage.name] = manifest.rows
            for row in read_rows(stage.folder):
                for name in decontaminator.find_sets(row.content):
                    found[name][row.row_id] = None
    return Contamination(
        ngram_words=NGRAM_WORDS,
        rows=rows,
        sets=tuple(
            SetContamination(
                name=name,
                compared_by=tuple(compared[name]),
                dropped=dropped[name],
                trained=len(found[name]),
                row_ids=tuple(found[name])[:MAX_LISTED],
            )
            for name in decontaminator.names
        ),
    )
