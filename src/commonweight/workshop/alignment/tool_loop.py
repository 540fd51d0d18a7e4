"""The stage ``tool_loop``: rows in which a request arrives inside a tool loop, and harmless tool loops."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import JsonValue

from commonweight.workshop.alignment.lesson_settings import ToolLoopSettings
from commonweight.workshop.alignment.openings import measure_commonest_opening
from commonweight.workshop.alignment.plain_turns import PlainTurns, open_plain_turns
from commonweight.workshop.alignment.row_decisions import RowDecisions
from commonweight.workshop.alignment.settings import AlignmentError
from commonweight.workshop.alignment.tool_rows import HARMFUL, ToolLoop, ToolLoopWriter
from commonweight.workshop.alignment.tool_table import LOCATION, NAME, read_table
from commonweight.workshop.data.dataset import DatasetWriter, read_rows
from commonweight.workshop.data.manifest import SourceOrigin, merge_origins, read_manifest, require_training_data
from commonweight.workshop.data.rows import Content, Message, Row, Split

_DRAWS = 50
"""Attempts for each harmless row, of which some are equal to earlier ones."""
_END_TOKENS = 1
"""After an answer."""


def run_tool_loop(
    settings: ToolLoopSettings, data: Path, model: Path, output: Path, report: Callable[[str], None]
) -> dict[str, float | str]:
    """Write rows of conversations with tools.

    Args:
        data: rows of harmful prompts with answers that turn them away.
        model: the GGUF file of a model with the prompt format of the one that is trained.

    Raises:
        AlignmentError: no row fits, or the model's format has no place for tools in plain text.
    """
    began = time.monotonic()
    manifest = read_manifest(data)
    require_training_data(data.name, manifest)
    table = read_table()
    writer = ToolLoopWriter(table)
    answers: list[str] = []
    known: set[str] = set()
    with (
        open_plain_turns(model) as turns,
        RowDecisions(output) as decisions,
        DatasetWriter(output) as dataset,
    ):

        def add(loop: ToolLoop, source: Row | None) -> bool:
            """Write the row of a conversation, unless something speaks against it."""
            made_of: dict[str, JsonValue] = {"kind": loop.kind, "task": loop.task}
            if source is not None:
                made_of["of"] = source.row_id
            row, reason = _make_row(loop, source, turns, settings.max_tokens, table.licence)
            if row is None or row.row_id in known:
                decisions.drop(reason or "equals another row", made_of)
                return False
            known.add(row.row_id)
            dataset.add(row)
            decisions.keep(row.row_id, made_of)
            answers.append(loop.answer)
            return True

        for source in read_rows(data):
            dice = random.Random(f"{settings.seed}:{source.row_id}")
            found = _find_request(source)
            if found is None:
                decisions.drop("is no single request with an answer", {"of": source.row_id})
                continue
            add(writer.write_harmful(dice.choice(HARMFUL), *found, dice), source)
        harmful = len(known)
        if not harmful:
            raise AlignmentError(
                f"No row of {data.name} becomes a tool loop ({decisions.describe_dropped()})."
            )
        wanted = round(harmful * settings.harmless_share / (1 - settings.harmless_share))
        made = sum(add(loop, None) for loop in _draw_harmless(writer, wanted, settings.seed, known, harmful))
        if made < wanted:
            report(f"tool loops: only {made:,} of {wanted:,} harmless ones, as others would repeat them")
        own = SourceOrigin(name=NAME, location=LOCATION, revision=None, sha256=table.sha256, files=1)
        written = dataset.finish([*merge_origins({data.name: manifest}), own], dropped=decisions.dropped)
    opening = measure_commonest_opening(answers)
    report(
        f"tool loops: {harmful:,} that are turned away, {made:,} harmless; {decisions.describe_dropped()}; "
        f"the commonest opening begins {opening:.1%} of answers"
    )
    return {
        "rows": float(written.rows),
        "harmful_rows": float(harmful),
        "commonest_opening": opening,
        "seconds": time.monotonic() - began,
    }


def _draw_harmless(
    writer: ToolLoopWriter, wanted: int, seed: int, known: set[str], before: int
) -> Iterator[ToolLoop]:
    """Draw conversations until enough rows are known, or too many were drawn in vain."""
    for number in range(wanted * _DRAWS):
        if len(known) - before >= wanted:
            return
        yield writer.write_harmless(random.Random(f"{seed}:harmless:{number}"))


def _find_request(row: Row) -> tuple[str, str] | None:
    """The only request of a conversation, and its answer."""
    messages = [message for message in row.content.messages or () if message.role != "system"]
    if row.content.kind != "messages" or [message.role for message in messages] != ["user", "assistant"]:
        return None
    asked, answer = (message.content.strip() for message in messages)
    return (asked, answer) if asked and answer else None


def _make_row(
    loop: ToolLoop, source: Row | None, turns: PlainTurns, max_tokens: int, licence: str
) -> tuple[Row | None, str]:
    """The row of a conversation, or why there is none."""
    conversation = turns.flatten(loop.request)
    messages = (*conversation.messages, Message("assistant", loop.answer))
    if any(turns.has_special_token(message.content) for message in messages):
        return None, "spells a special token"
    if conversation.tokens + turns.count_tokens(loop.answer) + _END_TOKENS > max_tokens:
        return None, "is longer than max_tokens"
    content = Content("messages", messages=messages)
    split: Split = source.split if source is not None else "train"
    return (
        Row(
            row_id=content.compute_row_id(),
            content=content,
            source=source.source if source is not None else NAME,
            licence=source.licence if source is not None else licence,
            generator=source.generator if source is not None else None,
            principle=source.principle if source is not None else None,
            split=split,
        ),
        "",
    )
