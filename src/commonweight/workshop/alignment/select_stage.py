"""The stage ``select``: good answers are kept, the best ones of each prompt; the others are counted by reason."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from commonweight.workshop.alignment.conversations import digest_prompt, split_answer
from commonweight.workshop.alignment.ledger import LedgerWriter, read_ledger
from commonweight.workshop.alignment.ngrams import measure_openings
from commonweight.workshop.alignment.selection import judge_answer, rank_samples
from commonweight.workshop.alignment.settings import AlignmentError, SelectSettings
from commonweight.workshop.data.dataset import DatasetWriter, read_rows
from commonweight.workshop.data.duplicates import NearDuplicates, require_near_rows
from commonweight.workshop.data.manifest import read_manifest, require_training_data
from commonweight.workshop.data.rows import Content, Row

OTHER_SAMPLE = "another-sample"
NEAR_DUPLICATE = "near-duplicate"


def run_select(
    settings: SelectSettings, data: Path, output: Path, report: Callable[[str], None]
) -> Mapping[str, float]:
    """Write the rows whose answers are kept, in order.

    Returns:
        Facts: the share that the most frequent opening has of the answers.

    Raises:
        AlignmentError: no row is left, or the ledger of the input is damaged.
    """
    manifest = read_manifest(data)
    require_training_data(data.name, manifest)
    rows = list(read_rows(data))
    answers = [parts[1] if (parts := split_answer(row)) else None for row in rows]
    known = read_ledger(data) or {}
    endings = [known.get(row.row_id, {}).get("ending") for row in rows]
    reasons = _judge(rows, answers, endings, settings)
    with DatasetWriter(output) as writer, LedgerWriter(output) as ledger:
        for row, ending, reason in zip(rows, endings, reasons, strict=True):
            if reason:
                ledger.drop(row, reason)
            else:
                writer.add(row)
                ledger.keep(row, row, ending=ending)
        counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(ledger.dropped.items()))
        if not writer.tally.rows:
            raise AlignmentError(f"No row of {len(rows):,} is left ({counts}).")
        written = writer.finish(manifest.sources, dropped=ledger.dropped)
    _, share = measure_openings(
        answer or "" for answer, reason in zip(answers, reasons, strict=True) if not reason
    )
    report(f"{written.rows:,} of {len(rows):,} rows kept" + (f"; dropped: {counts}" if counts else ""))
    return {"opening_share": round(share, 4)}


def _judge(
    rows: list[Row], answers: list[str | None], endings: list[str | None], settings: SelectSettings
) -> list[str]:
    """Why each row is dropped, or nothing."""
    reasons = [
        "no-answer" if answer is None else judge_answer(answer, ending, settings)
        for answer, ending in zip(answers, endings, strict=True)
    ]
    samples: dict[str, list[int]] = defaultdict(list)
    for number, (row, reason) in enumerate(zip(rows, reasons, strict=True)):
        parts = None if reason else split_answer(row)
        if parts is not None:
            samples[digest_prompt(parts[0])].append(number)
    for numbers in samples.values():
        order = rank_samples([answers[number] or "" for number in numbers], settings.best)
        for position in order[settings.keep_samples :]:
            reasons[numbers[position]] = OTHER_SAMPLE
    if settings.near_duplicate_similarity is not None:
        left = [number for number, reason in enumerate(reasons) if not reason]
        require_near_rows(len(left))
        near = NearDuplicates(settings.near_duplicate_similarity)
        for number in left:
            near.add(number, Content("text", text=answers[number]))
        for number in near.find():
            reasons[number] = NEAR_DUPLICATE
    return reasons
