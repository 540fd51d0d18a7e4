"""The stage ``pair``: of the answers to a prompt the best and the worst become a preference."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from commonweight.charter import Charter
from commonweight.workshop.alignment.charters import choose_principle
from commonweight.workshop.alignment.chat import ChatModel, Question, Sampling, ask_all, draw_seed
from commonweight.workshop.alignment.conversations import Prompt, digest_prompt, split_answer
from commonweight.workshop.alignment.journal import Journal
from commonweight.workshop.alignment.ledger import LedgerWriter, read_ledger
from commonweight.workshop.alignment.origins import ModelOrigin, combine_licences
from commonweight.workshop.alignment.questions import (
    VOTE_GRAMMAR,
    ask_critique,
    introduce_critique,
    read_vote,
)
from commonweight.workshop.alignment.ranking import DEGENERATE, Score, score_answer
from commonweight.workshop.alignment.settings import AlignmentError, PairSettings
from commonweight.workshop.data.dataset import DatasetWriter, read_rows
from commonweight.workshop.data.manifest import merge_origins, read_manifest, require_training_data
from commonweight.workshop.data.rows import Content, Message, Row, draw_fraction

JOURNAL = "votes.jsonl"
_VOTE_TOKENS = 8


@dataclass(frozen=True)
class _Candidate:
    """An answer to a prompt, and what it is worth."""

    row: Row
    prompt: Prompt
    answer: str
    form: Score
    is_first: bool
    """It is a first answer, which is never chosen."""
    value: float | None = None
    """From 0 to 1; None: the critic said nothing."""


def run_pair(
    settings: PairSettings,
    data: Path,
    first: Path | None,
    critic: tuple[ChatModel, ModelOrigin] | None,
    charter: Charter | None,
    output: Path,
    checkpoints: Path,
    report: Callable[[str], None],
) -> tuple[Mapping[str, float | str], Mapping[str, float]]:
    """Write preference rows, one for each prompt whose answers differ enough.

    Args:
        data: answers of a model to prompts, several to each; where pairs are ``against: first``, revisions.
        first: first answers to the same prompts, where pairs are against these.
        critic: the model that votes, and ``charter`` what it goes by, where a critic ranks.

    Returns:
        What was observed, and facts: prompts, pairs, the mean difference of scores, and prompts without a pair
        by reason.

    Raises:
        AlignmentError: no pair is left, a principle is not in the charter, or the critic does not answer.
    """
    folders = (data,) if first is None else (data, first)
    manifests = {folder.name: read_manifest(folder) for folder in folders}
    for name, manifest in manifests.items():
        require_training_data(name, manifest)
    dropped: list[tuple[Row, str]] = []
    candidates = _list_candidates(settings, data, False, dropped)
    if first is not None:
        candidates += _list_candidates(settings, first, True, dropped)
    observed: Mapping[str, float | str] = {}
    if critic is None:
        candidates = [replace(one, value=one.form.value) for one in candidates]
    else:
        assert charter is not None
        observed, candidates = _ask(settings, candidates, critic[0], charter, checkpoints, report)
    prompts: defaultdict[str, list[_Candidate]] = defaultdict(list)
    for one in candidates:
        prompts[digest_prompt(one.prompt)].append(one)
    differences: list[float] = []
    unpaired: Counter[str] = Counter()
    with (
        DatasetWriter(output) as writer,
        LedgerWriter(
            output,
            ranking=settings.ranking,
            critic=critic[1].generator if critic else None,
            weights=critic[0].digest if critic else None,
            charter=charter.sha256 if charter and critic else None,
        ) as ledger,
    ):
        for row, reason in dropped:
            ledger.drop(row, reason)
        for digest, group in prompts.items():
            ranked, reason = _choose(settings, group, first is not None)
            about = {"prompt": digest, "answers": len(group)}
            if reason:
                unpaired[reason] += 1
                for one in group:
                    ledger.drop(one.row, reason, **_describe(one), **about)
                continue
            best, worst = ranked[0], ranked[-1]
            pair = _make_row(best, worst)
            writer.add(pair)
            differences.append((best.value or 0.0) - (worst.value or 0.0))
            for rank, one in enumerate(ranked):
                role = {id(best): "chosen", id(worst): "rejected"}.get(id(one), "between")
                ledger.keep(one.row, pair, role=role, rank=rank, **_describe(one), **about)
        counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(unpaired.items()))
        if not differences:
            raise AlignmentError(f"No pair is left of {len(prompts):,} prompts ({counts or 'no answers'}).")
        writer.finish(merge_origins(manifests), dropped=ledger.dropped)
    mean = sum(differences) / len(differences)
    report(
        f"{len(differences):,} pairs of {len(prompts):,} prompts, {mean:.2f} apart on average"
        + (f"; prompts without a pair: {counts}" if counts else "")
    )
    facts = {"prompts": len(prompts), "pairs": len(differences), "difference": round(mean, 4), **unpaired}
    return observed, facts


def _list_candidates(
    settings: PairSettings, folder: Path, is_first: bool, dropped: list[tuple[Row, str]]
) -> list[_Candidate]:
    ledger = read_ledger(folder) or {}
    found: list[_Candidate] = []
    for row in read_rows(folder):
        parts = split_answer(row)
        if parts is None:
            dropped.append((row, "no-answer"))
            continue
        form = score_answer(parts[1], ledger.get(row.row_id, {}).get("ending"), settings)
        found.append(_Candidate(row, *parts, form, is_first))
    return found


def _ask(
    settings: PairSettings,
    candidates: Sequence[_Candidate],
    model: ChatModel,
    charter: Charter,
    checkpoints: Path,
    report: Callable[[str], None],
) -> tuple[Mapping[str, float | str], list[_Candidate]]:
    """The candidates with the share of votes that they keep their principle; degenerate ones have 0."""
    asked: list[_Candidate] = []
    others: list[_Candidate] = []
    questions: list[Question] = []
    for candidate in candidates:
        # By the prompt and not by the row, so that all its answers are read under one principle.
        drawn_for = replace(candidate.row, row_id=digest_prompt(candidate.prompt))
        principle = choose_principle(drawn_for, charter, settings.seed)
        if principle is None:
            raise AlignmentError(f"The charter has no principle {candidate.row.principle}, which rows name.")
        one = replace(candidate, row=replace(candidate.row, principle=principle.id))
        if one.form.value == DEGENERATE:
            others.append(replace(one, value=DEGENERATE))
            continue
        asked.append(one)
        questions += [
            Question(
                (ask_critique(one.prompt, one.answer, "constrained"),),
                draw_seed("pair", str(settings.seed), one.row.row_id, str(vote)),
                introduce_critique(principle),
                VOTE_GRAMMAR,
            )
            for vote in range(settings.votes)
        ]
    journal = Journal(checkpoints / JOURNAL)
    sampling = Sampling(_VOTE_TOKENS, settings.temperature)
    observed = ask_all(model, questions, sampling, journal, report) if questions else {}
    for number, one in enumerate(asked):
        replies = [journal.replies[number * settings.votes + vote] for vote in range(settings.votes)]
        votes = [vote for reply in replies if (vote := read_vote(reply.text, "constrained")) is not None]
        others.append(replace(one, value=votes.count("no") / len(votes) if votes else None))
    return observed, others


def _choose(
    settings: PairSettings, group: Sequence[_Candidate], is_against_first: bool
) -> tuple[list[_Candidate], str]:
    """The answers of a prompt from the best to the worst of a pair, or why there is none."""
    if any(one.value is None for one in group):
        return [], "no-vote"
    if is_against_first and len({one.is_first for one in group}) < 2:
        return [], "no-revision" if group[0].is_first else "no-first-answer"
    if len({one.answer.strip() for one in group}) < 2:
        return [], "single-answer"

    def rank(one: _Candidate) -> tuple[float, float, float]:
        drawn = draw_fraction("pair", str(settings.seed), one.row.row_id)
        return -(one.value or 0.0), -one.form.value, drawn

    ranked = sorted(group, key=rank)
    # What is chosen teaches where an answer ends, too.
    choosable = [one for one in ranked if one.form.is_good and one.form.is_finished and not one.is_first]
    if not choosable:
        return [], "none-good"
    best = choosable[0]
    rejectable = [one for one in ranked if one is not best and one.is_first == is_against_first]
    if not rejectable or (best.value or 0.0) - (rejectable[-1].value or 0.0) < settings.margin:
        return [], "too-close"
    worst = rejectable[-1]
    return [best, *(one for one in ranked if one is not best and one is not worst), worst], ""


def _describe(one: _Candidate) -> dict[str, object]:
    """What the ledger says of an answer, besides its rank."""
    return {"form": one.form.reason, "score": None if one.value is None else round(one.value, 4)}


def _make_row(best: _Candidate, worst: _Candidate) -> Row:
    content = Content(
        "preference",
        messages=best.prompt,
        chosen=(Message("assistant", best.answer),),
        rejected=(Message("assistant", worst.answer),),
    )
    return Row(
        content.compute_row_id(),
        content,
        best.row.source,
        combine_licences(best.row.licence, worst.row.licence),
        best.row.generator or worst.row.generator,
        best.row.principle or worst.row.principle,
        best.row.split,
    )
