"""Rows for other trainers, as JSON lines: what a stage of ours would train on, and nothing else."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from commonweight.workshop.training.dataset import Row, split_rows
from commonweight.workshop.training.loss_mask import IGNORED, Encoded
from commonweight.workshop.training.pairs import encode_pairs
from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.sft import split_conversations
from commonweight.workshop.training.tokenizer import load_tokenizer
from commonweight.workshop.training.trainer_config import ROWS, RowCounts, Trainer
from commonweight.workshop.training.tuning_settings import PreferenceSettings, SftSettings


def write_sft_rows(settings: SftSettings, data: Path, model: Path, folder: Path, trainer: Trainer) -> RowCounts:
    """Write the conversations of a dataset folder, encoded for a model, to ``rows/`` in a folder.

    Token ids and labels leave no room for another template or mask: a beginning that is given stays masked, too.

    Raises:
        TrainingError: there is nothing to train on, or the model's template cannot be masked.
    """
    parts = split_conversations(settings, data, load_tokenizer(model))
    for name, part in zip(("train", "validation"), parts, strict=True):
        _write_lines(folder / ROWS / f"{name}.jsonl", _list_encoded(part, trainer))
    train, held_out = parts
    return RowCounts(
        train=len(train.input_ids),
        validation=len(held_out.input_ids),
        tokens=sum(len(ids) for ids in train.input_ids),
        learned_tokens=sum(label != IGNORED for labels in train.labels for label in labels),
        left_out=dict(sorted((Counter(train.dropped) + Counter(held_out.dropped)).items())),
    )


def write_preference_rows(
    settings: PreferenceSettings, data: Path, model: Path, folder: Path, trainer: Trainer
) -> RowCounts:
    """Write the preferences of a dataset folder to ``rows/`` in a folder, without those that the stage would drop.

    Raises:
        TrainingError: there is nothing to train on.
    """
    tokenizer = load_tokenizer(model)
    parts = split_rows(data, "preference", settings.eval_share, settings.seed)
    counts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for name, part in zip(("train", "validation"), parts, strict=True):
        rows = []
        for row in part:
            pair = encode_pairs([row], tokenizer, settings.max_length)
            left_out.update(pair.dropped)
            if pair.prompt_ids:
                rows.append(row)
                counts[f"{name} tokens"] += pair.count_tokens()
                counts[f"{name} learned"] += len(pair.chosen_ids[0]) + len(pair.rejected_ids[0])
        if not rows:
            raise TrainingError(
                "the dataset has too few pairs within max_length to train on some, hold out others"
            )
        counts[name] = len(rows)
        _write_lines(folder / ROWS / f"{name}.jsonl", (_make_pair(row, trainer) for row in rows))
    return RowCounts(
        train=counts["train"],
        validation=counts["validation"],
        tokens=counts["train tokens"],
        learned_tokens=counts["train learned"],
        left_out=dict(sorted(left_out.items())),
    )


def _list_encoded(rows: Encoded, trainer: Trainer) -> Iterator[Mapping[str, object]]:
    for ids, labels in zip(rows.input_ids, rows.labels, strict=True):
        # axolotl takes rows as encoded by these three columns, and by no other.
        mask = {"attention_mask": [1] * len(ids)} if trainer == "axolotl" else {}
        yield {"input_ids": ids, **mask, "labels": labels}


def _make_pair(row: Row, trainer: Trainer) -> Mapping[str, object]:
    if trainer == "trl":
        return {"prompt": row.messages, "chosen": row.chosen, "rejected": row.rejected}
    answers = {"chosen": (row.chosen or [{}])[0], "rejected": (row.rejected or [{}])[0]}
    return {"messages": row.messages, **answers}


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
