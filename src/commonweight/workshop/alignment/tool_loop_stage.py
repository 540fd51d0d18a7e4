"""The stage ``tool_loop``: rows in which a request arrives inside a tool loop, and harmless tool loops."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from commonweight.workshop.alignment.conversations import split_answer
from commonweight.workshop.alignment.ledger import LedgerWriter
from commonweight.workshop.alignment.ngrams import measure_openings
from commonweight.workshop.alignment.origins import combine_licences
from commonweight.workshop.alignment.plain_turns import PlainTurns, open_plain_turns
from commonweight.workshop.alignment.settings import AlignmentError, ToolLoopSettings
from commonweight.workshop.alignment.tool_rows import HARMFUL, ToolLoop, ToolLoopWriter
from commonweight.workshop.alignment.tool_table import LOCATION, NAME, read_table
from commonweight.workshop.data.dataset import DatasetWriter, read_rows
from commonweight.workshop.data.manifest import SourceOrigin, merge_origins, read_manifest, require_training_data
from commonweight.workshop.data.rows import Content, Message, Row

_DRAWS = 50
"""Attempts for each harmless row, of which some are equal to earlier ones."""
_END_TOKENS = 1
"""After an answer."""


def run_tool_loop(
    settings: ToolLoopSettings, data: Path, model: Path, output: Path, report: Callable[[str], None]
) -> Mapping[str, float]:
    """Write rows of conversations with tools.

    Args:
        data: harmful prompts with answers that turn them away.
        model: a GGUF file with the prompt format of the model that is trained.

    Returns:
        Facts: rows by where something harmful is asked, and the share that the most frequent opening has of the
        answers.

    Raises:
        AlignmentError: no row fits, or the model's format has no place for tools in plain text.
    """
    manifest = read_manifest(data)
    require_training_data(data.name, manifest)
    table = read_table()
    loops = ToolLoopWriter(table)
    answers: list[str] = []
    known: set[str] = set()
    facts: Counter[str] = Counter(dict.fromkeys((*HARMFUL, "harmless"), 0))
    with (
        open_plain_turns(model) as turns,
        DatasetWriter(output) as writer,
        LedgerWriter(output, table=table.sha256) as ledger,
    ):

        def add(loop: ToolLoop, row: Row, source: Row | None = None) -> None:
            writer.add(row)
            known.add(row.row_id)
            answers.append(loop.answer)
            facts[loop.kind] += 1
            ledger.keep(source or row, row, kind=loop.kind, task=loop.task)

        for source in read_rows(data):
            found = _find_request(source)
            if found is None:
                ledger.drop(source, "no-single-request")
                continue
            dice = random.Random(f"{settings.seed}:{source.row_id}")
            loop = loops.write_harmful(dice.choice(HARMFUL), *found, dice)
            row, reason = _make_row(loop, source, turns, settings, table.licence)
            if row is None or row.row_id in known:
                ledger.drop(source, reason or "exact-duplicate", kind=loop.kind, task=loop.task)
                continue
            add(loop, row, source)
        counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(ledger.dropped.items()))
        if not known:
            raise AlignmentError(f"No row of {data.name} becomes a tool loop ({counts}).")
        wanted = round(len(known) * settings.harmless_share / (1 - settings.harmless_share))
        for number in range(wanted * _DRAWS):
            if facts["harmless"] == wanted:
                break
            loop = loops.write_harmless(random.Random(f"{settings.seed}:harmless:{number}"))
            row, _ = _make_row(loop, None, turns, settings, table.licence)
            if row is not None and row.row_id not in known:
                add(loop, row)
        own = SourceOrigin(name=NAME, location=LOCATION, revision=None, sha256=table.sha256, files=1)
        written = writer.finish([*merge_origins({data.name: manifest}), own], dropped=ledger.dropped)
    if facts["harmless"] < wanted:
        report(f"only {facts['harmless']:,} of {wanted:,} harmless tool loops; more would repeat these")
    _, share = measure_openings(answers)
    report(
        f"{written.rows:,} tool loops, {facts['harmless']:,} of them harmless"
        + (f"; dropped: {counts}" if counts else "")
        + f"; the most frequent opening has {share:.1%} of the answers"
    )
    return {**facts, "opening_share": round(share, 4)}


def _find_request(row: Row) -> tuple[str, str] | None:
    """The only request of a conversation, and its answer."""
    parts = split_answer(row)
    if parts is None or sum(message.role != "system" for message in parts[0]) != 1:
        return None
    asked, answer = parts[0][-1].content.strip(), parts[1].strip()
    return (asked, answer) if asked and answer else None


def _make_row(
    loop: ToolLoop, source: Row | None, turns: PlainTurns, settings: ToolLoopSettings, licence: str
) -> tuple[Row | None, str]:
    """The row of a conversation, or why there is none."""
    conversation = turns.flatten(loop.request)
    messages = (*conversation.messages, Message("assistant", loop.answer))
    if any(turns.has_special_token(message.content) for message in messages):
        return None, "special-token"  # training takes no such row
    if conversation.tokens + turns.count_tokens(loop.answer) + _END_TOKENS > settings.max_tokens:
        return None, "too-long"
    content = Content("messages", messages=messages)
    row_id = content.compute_row_id()
    if source is None:
        return Row(row_id, content, NAME, licence), ""
    licence = combine_licences(source.licence, licence)
    return Row(row_id, content, source.source, licence, source.generator, source.principle, source.split), ""
