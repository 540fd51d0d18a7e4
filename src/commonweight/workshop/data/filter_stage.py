"""The stage ``filter``: rows without duplicates, without traces of evaluation sets, and of a fitting length."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from commonweight.workshop.data.dataset import DatasetWriter, read_rows
from commonweight.workshop.data.decontamination import Decontaminator
from commonweight.workshop.data.duplicates import ExactDuplicates, NearDuplicates, require_near_rows
from commonweight.workshop.data.manifest import Manifest, merge_origins, read_manifest, require_training_data
from commonweight.workshop.data.rows import DataError, Row
from commonweight.workshop.data.settings import FilterSettings

CONTAMINATED = "contaminated.jsonl"
"""File of the output with the rows that share text with an evaluation set: ids and names, no text."""

_REASONS = ("", "too-short", "too-long", "contaminated", "exact-duplicate", "near-duplicate", "equal-answers")
_NUMBERS = {reason: number for number, reason in enumerate(_REASONS)}


def run_filter(
    settings: FilterSettings,
    inputs: Sequence[Path],
    evaluation_sets: Sequence[Path],
    output: Path,
    report: Callable[[str], None],
) -> dict[str, float | str]:
    """Write the rows of several dataset folders that are to be kept, in order, into one.

    The rows are read twice: once to decide, with a byte for each and the hashes that are compared in memory, and
    once to copy.

    Raises:
        DataError: an input is torn or an evaluation set, no row is left, or they are too many to compare.
    """
    began = time.monotonic()
    manifests = _read_manifests(inputs)
    if settings.near_duplicates:
        require_near_rows(sum(manifest.rows for manifest in manifests.values()))
    decontaminator = Decontaminator()
    if settings.decontaminate:
        for folder in evaluation_sets:
            decontaminator.add_evaluation_set(read_rows(folder))
        report(f"comparing with {', '.join(decontaminator.names) or 'no evaluation set'}")
    contaminated: Counter[str] = Counter(dict.fromkeys(decontaminator.names, 0))
    decisions = _decide(settings, inputs, decontaminator, output / CONTAMINATED, contaminated)
    dropped = {reason: decisions.count(number) for reason, number in _NUMBERS.items() if reason}
    if decisions.count(0) == 0:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.items() if count)
        raise DataError(f"The filter leaves no row of {len(decisions):,} ({reasons}).")
    with DatasetWriter(output) as writer:
        for decision, row in zip(decisions, _read_all(inputs), strict=True):
            if not decision:
                writer.add(row)
        manifest = writer.finish(merge_origins(manifests), dropped=dropped, contaminated=contaminated)
    counts = ", ".join(f"{reason} {count:,}" for reason, count in manifest.dropped.items())
    report(f"{manifest.rows:,} of {len(decisions):,} rows kept" + (f"; dropped: {counts}" if counts else ""))
    return {"seconds": time.monotonic() - began}


def _decide(
    settings: FilterSettings,
    inputs: Sequence[Path],
    decontaminator: Decontaminator,
    listing: Path,
    contaminated: Counter[str],
) -> bytearray:
    """One number a row: why it is dropped, or 0."""
    exact = ExactDuplicates() if settings.exact_duplicates else None
    near = NearDuplicates(settings.near_duplicate_similarity) if settings.near_duplicates else None
    decisions = bytearray()
    with listing.open("wb") as file:
        for number, row in enumerate(_read_all(inputs)):
            reason = _judge_alone(settings, row)
            if not reason and (sets := decontaminator.find_sets(row.content)):
                reason = "contaminated"
                contaminated.update(sets)
                file.write(msgspec.json.encode({"row_id": row.row_id, "source": row.source, "sets": sets}) + b"\n")
            if not reason and exact is not None and exact.is_duplicate(row.content):
                reason = "exact-duplicate"
            if not reason and near is not None:
                near.add(number, row.content)
            decisions.append(_NUMBERS[reason])
    for number in near.find() if near is not None else ():
        decisions[number] = _NUMBERS["near-duplicate"]
    return decisions


def _judge_alone(settings: FilterSettings, row: Row) -> str:
    characters = row.content.count_characters()
    if characters < settings.min_characters:
        return "too-short"
    if characters > settings.max_characters:
        return "too-long"
    if row.content.kind == "preference" and row.content.chosen == row.content.rejected:
        return "equal-answers"
    return ""


def _read_manifests(inputs: Sequence[Path]) -> dict[str, Manifest]:
    """Manifests by the folders' names; by numbers where several are called alike."""
    manifests = {f"{folder.name} ({number})": read_manifest(folder) for number, folder in enumerate(inputs, 1)}
    if not manifests:
        raise DataError("The filter has no input.")
    for name, manifest in manifests.items():
        require_training_data(name, manifest)
    return manifests


def _read_all(inputs: Sequence[Path]) -> Iterator[Row]:
    for folder in inputs:
        yield from read_rows(folder)
