"""The stage ``recover``: answers that begin as harmful ones did, and turn away."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from commonweight.prompting import Tokenizer
from commonweight.workshop.alignment.conversations import Prompt, digest_prompt, split_answer
from commonweight.workshop.alignment.ledger import LedgerWriter
from commonweight.workshop.alignment.ngrams import measure_openings
from commonweight.workshop.alignment.origins import combine_licences
from commonweight.workshop.alignment.plain_turns import open_vocabulary
from commonweight.workshop.alignment.refusals import is_refusal
from commonweight.workshop.alignment.settings import AlignmentError, RecoverSettings
from commonweight.workshop.alignment.stops import StopWriter, read_stops
from commonweight.workshop.data.dataset import DatasetWriter, read_rows
from commonweight.workshop.data.manifest import merge_origins, read_manifest, require_training_data
from commonweight.workshop.data.rows import Content, Message, Row, draw_fraction


@dataclass(frozen=True)
class Beginning:
    """The beginning of an answer that is given."""

    text: str
    tokens: int


def run_recover(
    settings: RecoverSettings,
    data: Path,
    revised: Path,
    model: Path,
    output: Path,
    report: Callable[[str], None],
) -> Mapping[str, float]:
    """Write rows whose answer begins as a first answer did, which is given, and then turns away.

    Args:
        data: first answers, which comply.
        revised: answers to the same prompts that turn them away.
        model: a GGUF file with the tokenizer that beginnings are counted with.

    Returns:
        Facts: the mean length of what is given, and the share that the most frequent opening has of what follows.

    Raises:
        AlignmentError: no first answer has a revision, or none of those that have one is long enough.
    """
    manifests = {folder.name: read_manifest(folder) for folder in (data, revised)}
    for name, manifest in manifests.items():
        require_training_data(name, manifest)
    revisions = _index_revisions(revised)
    stops = StopWriter(read_stops(), settings.seed)
    learned: list[str] = []
    tokens = 0
    with (
        open_vocabulary(model) as (tokenizer, _),
        DatasetWriter(output) as writer,
        LedgerWriter(output) as ledger,
    ):
        for row in read_rows(data):
            parts = split_answer(row)
            if parts is None:
                ledger.drop(row, "no-answer")
                continue
            found = revisions.get(digest_prompt(parts[0]))
            if found is None:
                ledger.drop(row, "no-revision")
                continue
            if is_refusal(parts[1]):
                ledger.drop(row, "refusal")
                continue
            revision = found[int(draw_fraction("revision", str(settings.seed), row.row_id) * len(found))]
            beginning = cut_beginning(parts[1].lstrip(), row.row_id, tokenizer, settings)
            if beginning is None:
                ledger.drop(row, "too-short")
                continue
            rest = f"{stops.write(beginning.text, row.row_id)} {_get_answer(revision)}"
            made = _make_row(parts[0], beginning.text, rest, row, revision)
            writer.add(made)
            ledger.keep(row, made, revision=revision.row_id, given_tokens=beginning.tokens)
            learned.append(rest)
            tokens += beginning.tokens
        counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(ledger.dropped.items()))
        if not learned:
            raise AlignmentError(
                f"No answer of {data.name} can be turned away from with {revised.name} ({counts})."
            )
        writer.finish(merge_origins(manifests), dropped=ledger.dropped)
    _, share = measure_openings(learned)
    report(
        f"{len(learned):,} answers are turned away from after {tokens / len(learned):.0f} tokens on average"
        + (f"; dropped: {counts}" if counts else "")
        + f"; the most frequent opening has {share:.1%} of these"
    )
    return {"given_tokens": round(tokens / len(learned), 2), "opening_share": round(share, 4)}


def _index_revisions(folder: Path) -> dict[str, list[Row]]:
    """Revisions by the digest of their prompt."""
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in read_rows(folder):
        parts = split_answer(row)
        if parts is not None and parts[1].strip():
            found[digest_prompt(parts[0])].append(row)
    return found


def _get_answer(row: Row) -> str:
    assert row.content.messages is not None
    return row.content.messages[-1].content.strip()


def cut_beginning(answer: str, row_id: str, tokenizer: Tokenizer, settings: RecoverSettings) -> Beginning | None:
    """The first tokens of an answer, as many as are drawn; never the whole of it, nor a part of a character.

    None: the answer is too short.
    """
    ids = tokenizer.encode(answer)
    most = min(settings.max_tokens, len(ids) - 1)
    if most < settings.min_tokens:
        return None
    drawn = draw_fraction("given", str(settings.seed), row_id)
    wanted = settings.min_tokens + int(drawn * (most - settings.min_tokens + 1))
    for count in range(wanted, most + 1):
        text = _decode(ids[:count], tokenizer)
        if text is not None and answer.startswith(text):
            return Beginning(text, count)
    return None


def _decode(ids: list[int], tokenizer: Tokenizer) -> str | None:
    """The text of tokens; None: they end inside of a character."""
    try:
        text = b"".join(tokenizer.decode(token) for token in ids).decode()
    except UnicodeDecodeError:
        return None
    return text.removeprefix(" ") if tokenizer.marks_word_starts else text


def _make_row(prompt: Prompt, beginning: str, rest: str, first: Row, revision: Row) -> Row:
    content = Content("messages", messages=(*prompt, Message("assistant", beginning + rest)), given=len(beginning))
    return Row(
        content.compute_row_id(),
        content,
        first.source,
        combine_licences(first.licence, revision.licence, read_stops().licence),
        revision.generator or first.generator,
        revision.principle or first.principle,
        first.split,
    )
