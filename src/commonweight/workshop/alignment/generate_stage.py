"""The stage ``generate``: prompts become rows with a model's own answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from commonweight.charter import Charter, Principle
from commonweight.workshop.alignment.charters import choose_principle
from commonweight.workshop.alignment.chat import ChatModel, Question, Sampling, ask_all, draw_seed
from commonweight.workshop.alignment.conversations import Prompt, digest_prompt, get_prompt
from commonweight.workshop.alignment.journal import Journal
from commonweight.workshop.alignment.ledger import LedgerWriter
from commonweight.workshop.alignment.origins import ModelOrigin, combine_licences
from commonweight.workshop.alignment.questions import format_principle
from commonweight.workshop.alignment.settings import AlignmentError, GenerateSettings
from commonweight.workshop.data.dataset import DatasetWriter, read_rows
from commonweight.workshop.data.manifest import read_manifest, require_training_data
from commonweight.workshop.data.rows import Content, Message, Row

JOURNAL = "answers.jsonl"
EMPTY = "empty"


@dataclass(frozen=True)
class _Asked:
    """A row whose prompt is answered."""

    row: Row
    prompt: Prompt
    principle: Principle | None


def run_generate(
    settings: GenerateSettings,
    data: Path,
    model: ChatModel,
    origin: ModelOrigin,
    charter: Charter,
    output: Path,
    checkpoints: Path,
    report: Callable[[str], None],
) -> tuple[Mapping[str, float | str], Mapping[str, int]]:
    """Write a row for every sample of every prompt: its conversation with the model's answer.

    Returns:
        What was observed, and facts of the rows.

    Raises:
        AlignmentError: no row is a prompt that fits the model, or the model does not answer.
    """
    manifest = read_manifest(data)
    require_training_data(data.name, manifest)
    rows = list(read_rows(data))
    asked, reasons = _list_prompts(rows, settings, charter)
    questions = [
        Question(
            item.prompt,
            draw_seed("generate", str(settings.seed), item.row.row_id, str(sample)),
            _format_shared_text(settings, item.principle, charter),
        )
        for item in asked.values()
        for sample in range(settings.samples)
    ]
    journal = Journal(checkpoints / JOURNAL)
    sampling = Sampling(settings.max_tokens, settings.temperature, settings.top_p)
    observed = ask_all(model, questions, sampling, journal, report)
    facts = {"generated_tokens": 0, "cut_answers": 0}
    follows = settings.system != "none"
    with (
        DatasetWriter(output) as writer,
        LedgerWriter(
            output,
            generator=origin.generator,
            weights=model.digest,
            charter=charter.sha256 if follows else None,
        ) as ledger,
    ):
        position = 0
        for number, row in enumerate(rows):
            if number not in asked:
                ledger.drop(row, reasons[number])
                continue
            for sample in range(settings.samples):
                reply, seed = journal.replies[position], questions[position].seed
                position += 1
                if not reply.asked:
                    ledger.drop(row, reply.ending, sample=sample)
                    continue
                text = reply.text.strip()
                if not text:
                    ledger.drop(row, EMPTY, sample=sample, seed=seed, ending=reply.ending)
                    continue
                answered = _make_row(asked[number], text, origin)
                writer.add(answered)
                facts["generated_tokens"] += reply.tokens
                facts["cut_answers"] += reply.is_cut
                ledger.keep(
                    row,
                    answered,
                    prompt=digest_prompt(asked[number].prompt),
                    sample=sample,
                    seed=seed,
                    ending=reply.ending,
                    tokens=reply.tokens,
                )
        if not writer.tally.rows:
            counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(ledger.dropped.items()))
            raise AlignmentError(f"No row of {len(rows):,} could be answered ({counts}).")
        written = writer.finish(manifest.sources, dropped=ledger.dropped)
    report(f"{written.rows:,} answers, {facts['cut_answers']:,} of them cut at {settings.max_tokens} tokens")
    return observed, facts


def _list_prompts(
    rows: list[Row], settings: GenerateSettings, charter: Charter
) -> tuple[dict[int, _Asked], dict[int, str]]:
    """Rows that are answered, by number, and why the others are not."""
    asked: dict[int, _Asked] = {}
    reasons: dict[int, str] = {}
    for number, row in enumerate(rows):
        prompt = get_prompt(row)
        principle = choose_principle(row, charter, settings.seed) if settings.system == "principle" else None
        if prompt is None:
            reasons[number] = "no-prompt"
        elif principle is None and settings.system == "principle":
            reasons[number] = "unknown-principle"
        else:
            asked[number] = _Asked(row, prompt, principle)
    return asked, reasons


def _format_shared_text(settings: GenerateSettings, principle: Principle | None, charter: Charter) -> str:
    if settings.system == "charter":
        return "\n\n".join([charter.preamble, *(format_principle(one) for one in charter.principles)])
    return "" if principle is None else format_principle(principle)


def _make_row(asked: _Asked, text: str, origin: ModelOrigin) -> Row:
    content = Content("messages", messages=(*asked.prompt, Message("assistant", text)))
    return Row(
        content.compute_row_id(),
        content,
        asked.row.source,
        combine_licences(asked.row.licence, *origin.licences),
        origin.generator,
        asked.row.principle or (asked.principle.id if asked.principle else None),
        asked.row.split,
    )
