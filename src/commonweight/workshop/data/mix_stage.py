"""The stage ``mix``: several dataset folders become one, by weight, with a part kept for validation."""

import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from commonweight.workshop.data.dataset import DatasetWriter, read_rows
from commonweight.workshop.data.manifest import MixShare, merge_origins, read_manifest, require_training_data
from commonweight.workshop.data.mix import (
    Interleaver,
    Selection,
    draw_order,
    is_validation,
    plan_sizes,
    select_rows,
)
from commonweight.workshop.data.rows import Row
from commonweight.workshop.data.settings import MixSettings


def run_mix(
    settings: MixSettings, inputs: Mapping[str, Path], output: Path, report: Callable[[str], None]
) -> dict[str, float | str]:
    """Write a mix: training rows of all inputs in turns, then the rows that are kept for validation, each once.

    Within an input rows keep their order; training shuffles. In memory are two numbers a row.

    Raises:
        DataError: an input is torn, empty or an evaluation set, or the weights do not fit.
    """
    began = time.monotonic()
    names = sorted(inputs)
    manifests = {name: read_manifest(inputs[name]) for name in names}
    for name, manifest in manifests.items():
        require_training_data(name, manifest)
    origins = merge_origins(manifests)
    characters: dict[str, array[int]] = {name: array("q") for name in names}
    order: dict[str, array[float]] = {name: array("d") for name in names}
    for name in names:
        for number, row in enumerate(_read_training_rows(settings, inputs[name])):
            characters[name].append(row.content.count_characters())
            order[name].append(draw_order(settings, name, row.row_id, number))
    sizes = plan_sizes(settings, {name: sum(characters[name]) for name in names})
    selections = {
        name: select_rows(size, np.frombuffer(characters[name], np.int64), np.frombuffer(order[name], np.float64))
        for name, size in sizes.items()
    }
    with DatasetWriter(output) as writer:
        _write_training_rows(settings, inputs, selections, writer)
        training = writer.tally.rows
        for name in names:
            for row in read_rows(inputs[name]):
                if _is_kept_apart(settings, row):
                    writer.add(replace(row, split="validation"))
        mix = _describe_shares(settings, selections, {name: sum(characters[name]) for name in names})
        manifest = writer.finish(origins, dropped=_count_left_out(selections), mix=mix)
    for share in mix:
        report(f"{share.name}: {share.share:.1%} of characters, {share.epochs:.2f} epochs, {share.rows:,} rows")
    report(f"{training:,} rows for training, {manifest.rows - training:,} for validation")
    return {"seconds": time.monotonic() - began}


def _write_training_rows(
    settings: MixSettings, inputs: Mapping[str, Path], selections: Mapping[str, Selection], writer: DatasetWriter
) -> None:
    rows = {name: _repeat(settings, inputs[name], selection) for name, selection in selections.items()}
    turns = Interleaver({name: selection.characters for name, selection in selections.items()})
    while rows:
        name = turns.choose(rows)
        row = next(rows[name], None)
        if row is None:
            del rows[name]
            continue
        writer.add(replace(row, split="train"))
        turns.count(name, row.content.count_characters())


def _repeat(settings: MixSettings, folder: Path, selection: Selection) -> Iterator[Row]:
    for _ in range(selection.whole_epochs):
        yield from _read_training_rows(settings, folder)
    if selection.in_part_epoch.any():
        for number, row in enumerate(_read_training_rows(settings, folder)):
            if selection.in_part_epoch[number]:
                yield row


def _read_training_rows(settings: MixSettings, folder: Path) -> Iterator[Row]:
    return (row for row in read_rows(folder) if not _is_kept_apart(settings, row))


def _is_kept_apart(settings: MixSettings, row: Row) -> bool:
    """Whether a row is for validation; what an earlier mix kept for it stays so."""
    return row.split == "validation" or is_validation(row.row_id, settings.validation)


def _describe_shares(
    settings: MixSettings, selections: Mapping[str, Selection], sizes: Mapping[str, int]
) -> list[MixShare]:
    weights = sum(settings.weights.values())
    total = sum(selection.characters for selection in selections.values())
    return [
        MixShare(
            name=name,
            weight=settings.weights[name] / weights,
            share=selection.characters / total,
            epochs=selection.characters / sizes[name],
            rows=selection.rows,
            characters=selection.characters,
        )
        for name, selection in selections.items()
    ]


def _count_left_out(selections: Mapping[str, Selection]) -> dict[str, int]:
    """Rows that no epoch holds, as their input is larger than its weight."""
    left_out = sum(
        int(np.count_nonzero(~selection.in_part_epoch))
        for selection in selections.values()
        if not selection.whole_epochs
    )
    return {"over-weight": left_out}
