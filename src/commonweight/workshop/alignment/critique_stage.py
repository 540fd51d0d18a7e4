"""The stage ``critique``: a model votes on whether answers break their principle; the rows stay as they are."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from commonweight.charter import Charter, Principle
from commonweight.workshop.alignment.charters import choose_principle
from commonweight.workshop.alignment.chat import ChatModel, Question, Sampling, ask_all, draw_seed
from commonweight.workshop.alignment.conversations import split_answer
from commonweight.workshop.alignment.journal import Journal
from commonweight.workshop.alignment.ledger import LedgerWriter
from commonweight.workshop.alignment.origins import ModelOrigin
from commonweight.workshop.alignment.questions import (
    VOTE_GRAMMAR,
    ask_critique,
    introduce_critique,
    read_vote,
)
from commonweight.workshop.alignment.settings import AlignmentError, CritiqueSettings
from commonweight.workshop.data.dataset import DatasetWriter, read_rows
from commonweight.workshop.data.manifest import read_manifest, require_training_data
from commonweight.workshop.data.rows import Row

JOURNAL = "votes.jsonl"
VERDICT = "verdict"
"""Key of a verdict in the ledger."""
Verdict = Literal["breaks", "keeps", "undecided"]
_VOTE_TOKENS = 8
"""Of a vote that is held to one word."""


@dataclass(frozen=True)
class _Item:
    """A row whose answer is voted on."""

    row: Row
    principle: Principle


def run_critique(
    settings: CritiqueSettings,
    data: Path,
    model: ChatModel,
    origin: ModelOrigin,
    charter: Charter,
    output: Path,
    checkpoints: Path,
    report: Callable[[str], None],
) -> tuple[Mapping[str, float | str], Mapping[str, int]]:
    """Write the rows with the principle that they were read under; verdicts and votes are in the ledger.

    Returns:
        What was observed, and facts: rows by verdict, and votes that could not be read.

    Raises:
        AlignmentError: no row ends in an answer, or the model does not answer.
    """
    manifest = read_manifest(data)
    require_training_data(data.name, manifest)
    rows = list(read_rows(data))
    items: dict[int, _Item] = {}
    reasons: dict[int, str] = {}
    questions: list[Question] = []
    for number, row in enumerate(rows):
        parts, principle = split_answer(row), choose_principle(row, charter, settings.seed)
        if parts is None or principle is None:
            reasons[number] = "no-answer" if parts is None else "unknown-principle"
            continue
        items[number] = _Item(row, principle)
        questions += [
            Question(
                (ask_critique(*parts, settings.reading),),
                draw_seed("critique", str(settings.seed), row.row_id, str(vote)),
                introduce_critique(principle),
                VOTE_GRAMMAR if settings.reading == "constrained" else None,
            )
            for vote in range(settings.votes)
        ]
    journal = Journal(checkpoints / JOURNAL)
    tokens = _VOTE_TOKENS if settings.reading == "constrained" else settings.max_tokens
    observed = ask_all(model, questions, Sampling(tokens, settings.temperature), journal, report)
    facts: Counter[str] = Counter({"breaks": 0, "keeps": 0, "undecided": 0, "unreadable_votes": 0})
    with (
        DatasetWriter(output) as writer,
        LedgerWriter(output, critic=origin.generator, weights=model.digest, charter=charter.sha256) as ledger,
    ):
        position = 0
        for number, row in enumerate(rows):
            if number not in items:
                ledger.drop(row, reasons[number])
                continue
            replies = [journal.replies[position + vote] for vote in range(settings.votes)]
            position += settings.votes
            if not replies[0].asked:
                ledger.drop(row, replies[0].ending)
                continue
            votes = [read_vote(reply.text, settings.reading) or "unreadable" for reply in replies]
            verdict = decide(votes)
            criticised = replace(row, principle=items[number].principle.id)
            writer.add(criticised)
            facts[verdict] += 1
            facts["unreadable_votes"] += votes.count("unreadable")
            ledger.keep(row, criticised, votes=votes, **{VERDICT: verdict})
        if not writer.tally.rows:
            counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(ledger.dropped.items()))
            raise AlignmentError(f"No row of {len(rows):,} has an answer that could be criticised ({counts}).")
        written = writer.finish(manifest.sources, dropped=ledger.dropped)
    report(
        f"{facts['breaks']:,} of {written.rows:,} answers break their principle, {facts['keeps']:,} keep it, "
        f"{facts['undecided']:,} undecided; {facts['unreadable_votes']:,} votes could not be read"
    )
    return observed, dict(facts)


def decide(votes: Sequence[str]) -> Verdict:
    """The verdict of the majority of the votes that could be read; none, where they are as many or not there."""
    breaks, keeps = votes.count("yes"), votes.count("no")
    return "undecided" if breaks == keeps else "breaks" if breaks > keeps else "keeps"
