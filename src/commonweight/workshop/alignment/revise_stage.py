"""The stage ``revise``: answers are replaced by ones that keep the principle, by a model or composed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from commonweight.charter import Charter, Principle
from commonweight.workshop.alignment.charters import choose_principle
from commonweight.workshop.alignment.chat import ChatModel, Question, Sampling, ask_all, draw_seed
from commonweight.workshop.alignment.composition import Composer
from commonweight.workshop.alignment.conversations import Prompt, digest_prompt, format_prompt, split_answer
from commonweight.workshop.alignment.critique_stage import VERDICT
from commonweight.workshop.alignment.journal import Journal
from commonweight.workshop.alignment.ledger import LedgerWriter, read_ledger
from commonweight.workshop.alignment.ngrams import measure_openings
from commonweight.workshop.alignment.origins import ModelOrigin, combine_licences
from commonweight.workshop.alignment.principle_phrases import read_phrases
from commonweight.workshop.alignment.questions import ask_revision, introduce_revision, read_revision
from commonweight.workshop.alignment.settings import AlignmentError, ReviseSettings
from commonweight.workshop.data.dataset import DatasetWriter, read_rows
from commonweight.workshop.data.manifest import read_manifest, require_training_data
from commonweight.workshop.data.rows import Content, Message, Row

JOURNAL = "revisions.jsonl"


@dataclass(frozen=True)
class _Item:
    """A row whose answer is revised, or stays as it is."""

    row: Row
    prompt: Prompt
    answer: str
    principle: Principle
    stays: bool


@dataclass(frozen=True)
class _Revision:
    """What an answer is replaced by, or why the row is dropped."""

    text: str = ""
    reason: str = ""
    seed: int | None = None


def run_revise(
    settings: ReviseSettings,
    data: Path,
    model: tuple[ChatModel, ModelOrigin] | None,
    charter: Charter,
    output: Path,
    checkpoints: Path,
    report: Callable[[str], None],
) -> tuple[Mapping[str, float | str], Mapping[str, float]]:
    """Write rows of the prompts with their revised answers. The first answers are not in them.

    Args:
        model: the one that revises; None: revisions are composed.

    Returns:
        What was observed, and facts: how many answers were revised, and the share that the most frequent opening
        has of them.

    Raises:
        AlignmentError: no row ends in an answer, a principle permits nothing, the model does not answer, or too
            many revisions begin alike.
    """
    manifest = read_manifest(data)
    require_training_data(data.name, manifest)
    rows = list(read_rows(data))
    items, reasons = _list_items(rows, data, settings, charter)
    revised = {number: item for number, item in items.items() if not item.stays}
    observed: Mapping[str, float | str] = {}
    licences: Sequence[str]
    if model is None:
        revisions = _compose(revised, settings)
        writer_name, weights, licences = None, None, (charter.licence,)
    else:
        observed, revisions = _ask(revised, settings, model[0], checkpoints, report)
        writer_name, weights, licences = model[1].generator, model[0].digest, model[1].licences
    most, share = measure_openings(one.text for one in revisions.values() if not one.reason)
    with (
        DatasetWriter(output) as writer,
        LedgerWriter(
            output, method=settings.method, generator=writer_name, weights=weights, charter=charter.sha256
        ) as ledger,
    ):
        for number, row in enumerate(rows):
            item = items.get(number)
            if item is None:
                ledger.drop(row, reasons[number])
                continue
            revision = revisions.get(number)
            if revision is not None and revision.reason:
                ledger.drop(row, revision.reason, seed=revision.seed)
                continue
            written = _make_row(item, revision, writer_name, licences)
            writer.add(written)
            ledger.keep(
                row,
                written,
                prompt=digest_prompt(item.prompt),
                revised=revision is not None,
                seed=revision.seed if revision else None,
            )
        if not writer.tally.rows:
            counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(ledger.dropped.items()))
            raise AlignmentError(f"No row of {len(rows):,} has an answer that could be revised ({counts}).")
        # One answer alone has the whole share of its opening.
        if most > 1 and share > settings.most_opening_share:
            raise AlignmentError(
                f"{most:,} revised answers begin with the same eight words, {share:.1%} of all; at most "
                f"{settings.most_opening_share:.1%} may (most_opening_share). A model would learn the phrase."
            )
        finished = writer.finish(manifest.sources, dropped=ledger.dropped)
    kept = sum(not one.reason for one in revisions.values())
    report(f"{finished.rows:,} rows, {kept:,} revised; the most frequent opening has {share:.1%} of these")
    return observed, {"revised": kept, "opening_share": round(share, 4)}


def _list_items(
    rows: Sequence[Row], data: Path, settings: ReviseSettings, charter: Charter
) -> tuple[dict[int, _Item], dict[int, str]]:
    """Rows that end in an answer, by number, and why the others are left out."""
    ledger = read_ledger(data) if settings.only_broken else None
    if settings.only_broken and not any(VERDICT in line for line in (ledger or {}).values()):
        raise AlignmentError("only_broken needs verdicts: name a stage of the kind critique as data.")
    items: dict[int, _Item] = {}
    reasons: dict[int, str] = {}
    for number, row in enumerate(rows):
        parts, principle = split_answer(row), choose_principle(row, charter, settings.seed)
        if parts is None or principle is None:
            reasons[number] = "no-answer" if parts is None else "unknown-principle"
            continue
        stays = ledger is not None and ledger.get(row.row_id, {}).get(VERDICT) == "keeps"
        items[number] = _Item(row, *parts, principle, stays)
    return items, reasons


def _compose(items: Mapping[int, _Item], settings: ReviseSettings) -> dict[int, _Revision]:
    phrases = {item.principle.id: read_phrases(item.principle) for item in items.values()}
    composer = Composer(settings.seed)
    return {
        number: _Revision(
            composer.compose(phrases[item.principle.id], format_prompt(item.prompt), item.row.row_id)
        )
        for number, item in items.items()
    }


def _ask(
    items: Mapping[int, _Item],
    settings: ReviseSettings,
    model: ChatModel,
    checkpoints: Path,
    report: Callable[[str], None],
) -> tuple[Mapping[str, float | str], dict[int, _Revision]]:
    questions = [
        Question(
            (ask_revision(item.prompt, item.answer),),
            draw_seed("revise", str(settings.seed), item.row.row_id),
            introduce_revision(item.principle),
        )
        for item in items.values()
    ]
    journal = Journal(checkpoints / JOURNAL)
    sampling = Sampling(settings.max_tokens, settings.temperature, settings.top_p)
    observed = ask_all(model, questions, sampling, journal, report)
    revisions: dict[int, _Revision] = {}
    for position, (number, item) in enumerate(items.items()):
        reply, seed = journal.replies[position], questions[position].seed
        text = read_revision(reply.text)
        if not reply.asked:
            reason = reply.ending
        elif reply.is_cut:
            reason = "cut"
        elif not text:
            reason = "empty"
        else:
            reason = "unchanged" if text == item.answer.strip() else ""
        revisions[number] = _Revision(text, reason, seed)
    return observed, revisions


def _make_row(item: _Item, revision: _Revision | None, generator: str | None, licences: Sequence[str]) -> Row:
    row = item.row
    if revision is None:
        return Row(row.row_id, row.content, row.source, row.licence, row.generator, item.principle.id, row.split)
    content = Content("messages", messages=(*item.prompt, Message("assistant", revision.text)))
    return Row(
        content.compute_row_id(),
        content,
        row.source,
        combine_licences(row.licence, *licences),
        generator,
        item.principle.id,
        row.split,
    )
